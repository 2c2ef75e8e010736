"""What does a bundle say about itself, and is the bundle what it says?

``manifest.json`` names every file with size and SHA-256, and holds its own. It holds no time and no path, so one seed gives one
hash. Reading it runs no code. Every file is read once: what was hashed is what is parsed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunus.core.errors import BundleError, DataError
from prunus.core.files.json_text import JsonError, parse_json
from prunus.core.files.plain_files import NotPlainError, open_plain
from prunus.core.files.sealed import canonical_json, tree_sha256
from prunus.core.files.urls.url_path import is_url
from prunus.core.recipes.recipe import Model
from prunus.core.recipes.trust import reaches
from prunus.core.text import plain, shown
from prunus.data.columns.fitted import Columns
from prunus.ship.graph_limits import TooCostlyError, times_asked
from prunus.ship.inputs import Inputs, floats, shapes, sizes_misfit
from prunus.ship.pretrained_entry import PretrainedEntry
from prunus.tasks import task_of_options, tasks

__all__ = [
    "FORMAT",
    "GRAPH",
    "GRAPH_TENSORS",
    "MANIFEST",
    "RELEASE",
    "SIGNATURE",
    "WEIGHTS",
    "BuiltBy",
    "Contents",
    "FileEntry",
    "FileName",
    "Manifest",
    "Proof",
    "Sha256",
    "TensorEntry",
    "bundle_sha256",
    "bundle_size_bytes",
    "canonical_json",
    "changed",
    "explain",
    "manifest_sha256",
    "manifest_tree",
    "most_bytes",
    "open_listed",
    "read_contents",
    "read_manifest",
    "read_manifest_file",
]

FORMAT: Literal[3] = 3
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
GRAPH = "graph.json"
SIGNATURE = "model.sig"
"""Lies beside what it signs, where ``model_signing`` itself puts it."""
RELEASE = "release.json"
"""Says as which version the bundle was signed."""
GRAPH_TENSORS = "graph/"
"""What the names of tensors begin with that the graph needs and the model's state dict hasn't got."""
_LARGEST_JSON = {MANIFEST: 64 * 2**20, GRAPH: 32 * 2**20}
_MOST_VALUES = 3_000_000
"""As Python objects they take twenty times the space that they take as text."""

Size = Annotated[int, Field(ge=0, lt=2**62)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """A part of the manifest: types are exact, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class FileEntry(_Part):
    """One file of the bundle."""

    sha256: Sha256
    size_bytes: Size


class BuiltBy(_Part):
    """Which function builds the dense model: a built-in name, or ``module:function``, or None when the saver had only the model."""

    builder: str | None
    args: dict[str, Any] = Field(default_factory=dict)

    @property
    def needs_code(self) -> bool:
        """Whether building runs code that isn't part of prunus."""
        return self.builder is None or any(reaches(Model(builder=self.builder, args=self.args)))


class TensorEntry(_Part):
    """How one tensor of the state dict is stored.

    ``plain``: under its name. ``bitmask``: under its name, as bytes: a bit per element and the elements that aren't zero, in parts
    of these lengths (``ship.sparse``). ``alias``: it is the tensor ``same_as`` under a second name (tied weights).
    """

    dtype: str
    shape: tuple[Size, ...] = Field(strict=False)
    stored: Literal["plain", "bitmask", "alias"] = "plain"
    same_as: str | None = None
    parts: tuple[Size, ...] = Field((), strict=False)


class Proof(_Part):
    """Which run made the bundle, and what was shown of its contract; None where it had none."""

    run_id: Sha256
    contract: dict[str, Any] | None = None


class Manifest(_Part):
    """Everything but the weights and the traced computation.

    ``edits`` is None when the model *is* a traced computation, of no class. ``no_graph`` says why no ``graph.json`` goes along.
    ``columns`` says what a table's features are made of. ``inputs`` says what the model takes where that isn't one float32 tensor
    of ``input_shape``; ``n_output_tensors`` how many tensors it gives. ``task_options`` say how the task reads answers;
    ``own_task`` names one that is Python code, for whoever has it: it is never imported. ``pretrained`` is the class of
    transformers whose config builds the model, where it is of one.
    """

    format: Literal[3]
    versions: dict[str, str]
    model: BuiltBy
    edits: dict[str, Any] | None
    tensors: dict[str, TensorEntry]
    task: str = Field(max_length=60)
    task_options: dict[str, Any] = Field(default_factory=dict, max_length=64)
    own_task: str | None = Field(None, max_length=300)
    input_shape: tuple[Annotated[int, Field(ge=1, lt=2**31)], ...] = Field(strict=False, min_length=1)
    n_outputs: int = Field(ge=1, lt=2**31)
    class_names: tuple[str, ...] = Field((), strict=False)
    feature_names: tuple[str, ...] = Field((), strict=False)
    columns: Columns | None = None
    scaler: dict[str, Any] | None = None
    target_scaler: dict[str, Any] | None = None
    no_graph: str | None = Field(None, max_length=500)
    inputs: Inputs = Field((), strict=False, max_length=64)
    n_output_tensors: int = Field(1, ge=1, le=64)
    pretrained: PretrainedEntry | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    proof: Proof | None = None
    files: dict[FileName, FileEntry]
    sha256: Sha256 = Field("0" * 64, description="of the canonical JSON of all the rest")

    @property
    def takes(self) -> Inputs:
        """What the model takes."""
        return self.inputs or floats(self.input_shape)

    @model_validator(mode="after")
    def _fit(self) -> Manifest:
        names = [entry.name for entry in self.inputs]
        if len({name is None for name in names}) > 1 or len(set(names)) < len(names) > names.count(None):
            raise ValueError(f"inputs are positional or have names of their own, got {names}")
        if self.inputs and (problem := sizes_misfit(self.inputs, shapes(self.inputs, 2))):
            raise ValueError(f"inputs: {problem}")
        if WEIGHTS not in self.files:
            raise ValueError(f"files must list {WEIGHTS}, got {sorted(self.files)}")
        if odd := {MANIFEST, SIGNATURE, RELEASE} & self.files.keys():
            raise ValueError(f"files can't list {min(odd)}, which is made after the others")
        if self.no_graph is not None and not self.no_graph.isprintable():
            raise ValueError(f"no_graph must be one line of text, got {self.no_graph[:80]!r}")
        if self.edits is None and GRAPH not in self.files:
            raise ValueError(f"a bundle without edits is its graph: files must list {GRAPH}, got {sorted(self.files)}")
        if self.task not in tasks:
            raise ValueError(f"task must be one of {', '.join(tasks)}, got {self.task!r}")
        task_of_options(self.task, self.task_options, class_names=self.class_names)
        if self.own_task is not None and not self.own_task.isprintable():
            raise ValueError(f"own_task must be one line of text, got {shown(self.own_task)}")
        if self.task == "classification" and self.class_names and len(self.class_names) != self.n_outputs:
            raise ValueError(f"{self.n_outputs} outputs need as many class_names, got {len(self.class_names)}")
        if self.columns is not None and self.columns.feature_names != self.feature_names:
            got = (len(self.columns.feature_names), len(self.feature_names))
            raise ValueError(f"columns and feature_names must name the same features: got {got[0]} and {got[1]}")
        if self.columns is not None and self.input_shape != (len(self.feature_names),):
            raise ValueError(
                f"columns of {len(self.feature_names)} features don't fit input_shape {list(self.input_shape)}"
            )
        for name, entry in self.tensors.items():
            target = self.tensors.get(entry.same_as or "")
            if (entry.stored == "bitmask") != bool(entry.parts):
                raise ValueError(
                    f"tensor {name!r}: parts go with stored: bitmask, got {entry.stored}, {list(entry.parts)}"
                )
            if (entry.stored == "alias") != (entry.same_as is not None):
                raise ValueError(f"tensor {name!r}: same_as goes with stored: alias, got {entry.stored}")
            if entry.stored == "alias" and (
                target is None or target.stored == "alias" or (target.shape, target.dtype) != (entry.shape, entry.dtype)
            ):
                raise ValueError(
                    f"tensor {name!r} must be the same as a stored tensor of its shape, got {entry.same_as!r}"
                )
        return self


@dataclass(frozen=True)
class Contents:
    """A bundle as it was read: its manifest, and the bytes of weights and graph, which are those that were hashed."""

    folder: Path
    manifest: Manifest
    files: Mapping[str, bytes]

    def json(self, name: str, *, max_rows: int | None = None) -> Any:
        """Return what one of the files holds; ``max_rows`` as in :func:`parse_json`.

        Raises:
            BundleError: it is no JSON.
        """
        return _parse_json(self.files[name], self.folder / name, max_rows)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the bundle at ``folder``; nothing else is read.

    Raises:
        BundleError: there is none, it isn't one that this version knows, or it was changed after it was written.
    """
    return read_manifest_file(folder)[0]


def read_manifest_file(folder: Path) -> tuple[Manifest, bytes]:
    """Return the manifest of the bundle at ``folder``, and the bytes that it was read from.

    Raises:
        BundleError: as :func:`read_manifest`.
    """
    path = folder / MANIFEST
    content = _read(path, _LARGEST_JSON[MANIFEST])
    tree = _parse_json(content, path)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        got = tree.get("format") if isinstance(tree, dict) else type(tree).__name__
        older = type(got) is int and 0 < got < FORMAT
        advice = "an older prunus wrote it: make the bundle anew, or " if older else ""
        raise BundleError(
            f"{path}: expected format {FORMAT}, got {shown(got)}; {advice}load it with the prunus that wrote it"
        )
    if (got := tree_sha256(tree)) != tree.get("sha256"):
        raise changed(path, str(tree.get("sha256")), got)
    try:
        return Manifest.model_validate(tree), content
    except ValidationError as error:
        raise BundleError(f"{path}: {explain(error)}; fetch or make the bundle anew") from error


def read_contents(folder: Path, *, sha256: str | None = None, made: Mapping[str, bytes] | None = None) -> Contents:
    """Return what lies in the bundle at ``folder``: every file that the manifest lists is a plain one of that size and SHA-256.

    Args:
        sha256: the hash that the bundle must have, if it is to be this one and no other.
        made: files that don't lie there, but were put together from others; they must be what the manifest says, too.

    Raises:
        BundleError: a file is missing, is a link, or was changed; or it is another bundle.
    """
    manifest = read_manifest(folder)
    if sha256 is not None and manifest.sha256 != sha256:
        raise changed(folder, sha256, manifest.sha256)
    files = {}
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        given = None if made is None else made.get(name)
        content = _read(path, most_bytes(name), entry.size_bytes) if given is None else given
        if (got := hashlib.sha256(content).hexdigest()) != entry.sha256:
            raise changed(path, entry.sha256, got)
        if name in (WEIGHTS, GRAPH):
            files[name] = content
    return Contents(folder, manifest, files)


def most_bytes(name: str) -> int | None:
    """Return how large a file of a bundle may be; None where it may have any size."""
    return _LARGEST_JSON[name] * _times(name) if name in _LARGEST_JSON else None


def _read(path: Path, most: int | None = None, size_bytes: int | None = None) -> bytes:
    """Return the content of a plain file, whose size is looked at before anything is read."""
    with open_listed(path, most, size_bytes) as (file, size):
        return file.read(size)  # what is appended meanwhile isn't in the hash either


@contextmanager
def open_listed(path: Path, most: int | None = None, size_bytes: int | None = None) -> Iterator[tuple[BinaryIO, int]]:
    """Yield a plain file of a bundle, opened, and its size, which was looked at before.

    Args:
        most: so many bytes may it have.
        size_bytes: so many must it have.

    Raises:
        BundleError: it isn't there, is a link, a folder or a device, can't be read, or has another size.
    """
    try:
        with open_plain(path) as file:
            size = file.seek(0, os.SEEK_END) if is_url(path) else os.fstat(file.fileno()).st_size
            file.seek(0)
            if size_bytes is not None and size != size_bytes:
                raise BundleError(f"{path}: expected {size_bytes} bytes, got {size}; fetch or make the bundle anew")
            if most is not None and size > most:
                raise BundleError(f"{path}: expected at most {most} bytes, got {size}")
            yield file, size
    except DataError as error:
        raise BundleError(str(error)) from error
    except NotPlainError as error:
        raise BundleError(
            f"{path}: a bundle holds plain files only, got a link, a folder or a device; copy the file itself"
        ) from error
    except OSError as error:
        raise BundleError(
            f"no bundle at {path.parent}: {path.name} is missing or can't be read ({error.strerror}); give the bundle's folder"
        ) from error


def _times(name: str) -> int:
    return times_asked() if name == GRAPH else 1


def _parse_json(content: bytes, path: Path, max_rows: int | None = None) -> Any:
    """Return what a JSON file holds; keys that come twice and numbers that JSON hasn't got are refused."""
    try:
        times = _times(path.name)
        return parse_json(
            content, max_bytes=_LARGEST_JSON[path.name] * times, max_values=_MOST_VALUES * times, max_rows=max_rows
        )
    except JsonError as error:
        if path.name == GRAPH and "at most" in str(error):
            raise TooCostlyError(f"{path}: {error}") from error
        raise BundleError(f"{path}: {error}; fetch or make the bundle anew") from error


def changed(path: Path, expected: str, got: str) -> BundleError:
    """Return the error for a file, or a bundle, of another hash than it must have."""
    return BundleError(
        f"{path} was changed after it was written: expected SHA-256 {plain(expected[:12])}…, got {got[:12]}…; "
        "fetch or make the bundle anew"
    )


def explain(error: ValidationError, what: str = "manifest") -> str:
    """Return the first mistake in a manifest (or ``what`` else) in one line: the key, what was expected, what came."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or what
    got = "" if first["type"] == "value_error" else f", got {shown(str(first['input']))}"
    return " ".join(f"{key}: {first['msg'].removeprefix('Value error, ')}{got}".split())


def bundle_sha256(folder: Path) -> str:
    """Return the hash of the whole bundle: of the manifest's canonical JSON, which holds the hash of every file.

    Same seed, same software, same hash.

    Raises:
        BundleError: the manifest can't be read, or a file isn't what it says.
    """
    return read_contents(folder).manifest.sha256


def manifest_tree(manifest: Manifest) -> dict[str, Any]:
    """Return the plain values that are written: what has its default is left out."""
    return manifest.model_dump(mode="json", exclude_defaults=True)


def manifest_sha256(manifest: Manifest) -> str:
    """Return the hash of the manifest's canonical JSON, but for the hash that it holds."""
    return tree_sha256(manifest_tree(manifest))


def bundle_size_bytes(folder: Path) -> int:
    """Return the bytes of the manifest and of every file that it lists, as they lie on disk (no block rounding)."""
    names = [MANIFEST, *read_manifest(folder).files]
    return sum((folder / name).stat().st_size for name in names)
