"""How does a bundle become an ONNX file once, and is the one that is kept still that file?

Files lie in a folder that only its owner may enter, named by the bundle's hash and the versions of what made them. Beside each is
its own hash: what was changed or half-written is made anew.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.core.errors import BundleError, ModelError, OutputError
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.json_text import JsonError, parse_json, read_json_file
from prunus.core.files.plain_files import NotPlainError, explain_os_error, open_plain, write_json
from prunus.core.runtime import versions

__all__ = ["ExportedOnce", "cache_folder", "exported_once"]

_PATIENCE_S = 1800
_FACTS_BYTES = 64 * 2**10


@dataclass(frozen=True)
class ExportedOnce:
    """The bytes of an exported model, and how far its answers were from the bundle's when it was made."""

    file: bytes
    difference: float
    note: str
    path: Path


def cache_folder(asked: Path | None) -> Path:
    """Return the folder for exported models, which is made if it isn't there.

    Raises:
        OutputError: it can't be made, is somebody else's, or others may write to it.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = asked or base / "prunus" / "serve"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise explain_os_error(error, folder) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OutputError(
            f"{folder} must be a folder of yours that nobody else can write to, since models are loaded from it: got mode "
            f"{stat.S_IMODE(found.st_mode):o}, owner {found.st_uid}; chmod 700 it, or choose another (--cache)"
        )
    return folder


def exported_once(
    bundle: Path, sha256: str, folder: Path, *, trust_code: bool, say: Callable[[str], None] = lambda _: None
) -> ExportedOnce:
    """Return the ONNX file of the bundle with this hash, exported now if it wasn't before.

    Raises:
        ModelError: it can't be exported; the message says why.
        BundleError: the bundle was changed meanwhile, or can't be loaded.
        OutputError: the file can't be written.
    """
    path = folder / f"{sha256[:32]}-{_made_with()}.onnx"
    facts_path = path.with_suffix(".json")
    kept = _kept(path, facts_path, sha256)
    if kept is not None:
        return kept
    say(f"exporting {bundle} to ONNX, for seconds to a minute; the file is kept in {folder}")
    said = _export(bundle, path, trust_code)
    if said.get("sha256") != sha256:
        raise BundleError(f"{bundle} was changed while it was loaded: start again when it is whole")
    write_json(facts_path, {**said, "onnx_sha256": sha256_file(path)})
    made = _kept(path, facts_path, sha256)
    if made is None:
        raise OutputError(f"{path} was changed by somebody else while it was written: choose another folder (--cache)")
    return made


def _made_with() -> str:
    return hashlib.sha256(repr(sorted(versions().items())).encode()).hexdigest()[:12]


def _kept(path: Path, facts_path: Path, sha256: str) -> ExportedOnce | None:
    """Return the kept file if it is whole; what was hashed is what is used."""
    try:
        facts = read_json_file(facts_path, max_bytes=_FACTS_BYTES)
        with open_plain(path) as file:
            content = file.read()
    except (NotPlainError, OSError, JsonError):
        return None
    if not isinstance(facts, dict) or facts.get("sha256") != sha256:
        return None
    if facts.get("onnx_sha256") != hashlib.sha256(content).hexdigest():
        return None
    return ExportedOnce(content, float(facts.get("difference", 0.0)), str(facts.get("note", "")), path)


def _export(bundle: Path, path: Path, trust_code: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "prunus.serve.running.onnx_worker", str(bundle), str(path)]
    command += ["--trust-code"] if trust_code else []
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{bundle}: the export to ONNX took more than {_PATIENCE_S} s") from error
    lines = done.stdout.splitlines() or [b""]
    try:
        said = parse_json(lines[-1], max_bytes=_FACTS_BYTES)
    except JsonError:
        said = None
    if not isinstance(said, dict):
        words = " ".join(done.stderr.decode(errors="replace").splitlines()[-1:])[:200]
        raise ModelError(f"{bundle}: the export to ONNX ended with code {done.returncode}: {words or 'killed'}")
    if "error" in said:
        kinds = {5: ModelError, 6: BundleError, 7: OutputError}
        raise kinds.get(int(said.get("code", 5)), ModelError)(str(said.get("message")))
    return said
