"""Who may ask, and who may change what is served?

Keys come from a file that nobody else can read, or from the environment. They are kept and compared as hashes, all of them each
time, so that how long a comparison takes says nothing of any key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunus.core.errors import RecipeError
from prunus.core.files.plain_files import NotPlainError, open_plain
from prunus.core.text import shown

__all__ = ["ENVIRONMENT", "ApiKeys", "Caller"]

ENVIRONMENT = "PRUNUS_API_KEYS"
_LEAST_LETTERS = 16
_MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}")
_HASHED = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Caller:
    """Who asks: a key's name, and whether it may change what is served."""

    name: str
    admin: bool = False


@dataclass(frozen=True)
class ApiKeys:
    """The keys' hashes, and whose they are."""

    callers: Mapping[bytes, Caller]

    def caller(self, key: str) -> Caller | None:
        """Return whose key it is; None: nobody's."""
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known, caller in self.callers.items():  # no early end
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> ApiKeys:
        """Return the keys of a file and of ``PRUNUS_API_KEYS``; none where there is neither.

        Each line of the file (or part between commas of the variable) is ``NAME KEY``, or ``NAME KEY admin``. In place of a key
        there may be ``sha256:`` and its hash in hexadecimal.

        Raises:
            RecipeError: the file can't be read, others can read it, or a line is wrong; no message shows a key.
        """
        callers: dict[bytes, Caller] = {}
        lines = [] if file is None else [(f"{file}, line {n}", line) for n, line in enumerate(_lines(file), 1)]
        parts = environment.get(ENVIRONMENT, "").split(",")
        lines += [(f"{ENVIRONMENT}, part {n}", part) for n, part in enumerate(parts, 1)]
        for where, line in lines:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            digest, caller = _entry(where, words)
            if digest in callers or any(caller.name == other.name for other in callers.values()):
                raise RecipeError(f"{where}: the name {caller.name!r} or its key is there twice: give each its own")
            callers[digest] = caller
        if file is not None and not callers:
            raise RecipeError(f"{file}: expected lines of NAME KEY, got none; make a key with `openssl rand -hex 24`")
        return cls(callers)


def _entry(where: str, words: list[str]) -> tuple[bytes, Caller]:
    if len(words) not in (2, 3) or words[2:] not in ([], ["admin"]):
        raise RecipeError(f"{where}: expected NAME KEY, or NAME KEY admin, got {len(words)} words")
    name, key = words[0], words[1]
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{where}: a key's name has letters, digits, dots and dashes, got {shown(name)}")
    if _HASHED.fullmatch(key):
        return bytes.fromhex(key.removeprefix("sha256:")), Caller(name, words[2:] == ["admin"])
    if len(key) < _LEAST_LETTERS:
        raise RecipeError(
            f"{where}: a key has at least {_LEAST_LETTERS} letters, got {len(key)}; make one with `openssl rand -hex 24`"
        )
    return hashlib.sha256(key.encode()).digest(), Caller(name, words[2:] == ["admin"])


def _lines(file: Path) -> list[str]:
    try:
        with open_plain(file) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(_MOST_BYTES + 1)
    except NotPlainError as error:
        raise RecipeError(f"the key file {file} must be a plain file, got a link, a folder or a device") from error
    except OSError as error:
        raise RecipeError(f"the key file {file} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise RecipeError(
            f"others can read the key file {file}: its mode is {stat.S_IMODE(mode):o}; chmod 600 it, and make new keys"
        )
    if len(content) > _MOST_BYTES:
        raise RecipeError(f"the key file {file} must be smaller than {_MOST_BYTES} bytes")
    try:
        return content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise RecipeError(f"the key file {file} must be text in UTF-8") from error
