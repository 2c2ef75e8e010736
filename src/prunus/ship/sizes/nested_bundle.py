"""Where does a smaller size find its weights, when a larger one holds them already?

Each size is a bundle in a folder of its own. The largest has its ``model.safetensors``, and so has who shares nothing with it;
for the others ``own.safetensors`` holds what is theirs, and the positions that their other tensors have in the largest's. Putting
them together gives the very bytes that the size's manifest names by their SHA-256, or an error: what loads is what was saved, and
nothing in these files is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from prunus.core.errors import BundleError, OutputError, WeightsError, raise_if_out_of_memory
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import atomic_folder, open_plain, write_json
from prunus.core.files.sealed import sealed_tree, unsealed_tree
from prunus.core.tensors import save_tensors
from prunus.models.safetensors_file import parse_header
from prunus.ship.manifest import (
    MANIFEST,
    RELEASE,
    SIGNATURE,
    WEIGHTS,
    Contents,
    open_listed,
    read_contents,
    read_manifest,
)

__all__ = [
    "SIZES",
    "find_sizes",
    "folder_of_size",
    "list_sizes",
    "read_size",
    "save_sizes",
    "size_of_folder",
    "write_size",
]

SIZES = "sizes"
"""The folder of a run with its sizes."""
INDEX, OWN = "sizes.json", "own.safetensors"
_FORMAT = 1
_LARGEST_INDEX = 2**20
_PLACES = "places/"
"""What positions are called: ``places/DIMENSION/TENSOR``."""
_OWN = "own/"
_KEEP = "keep-"

Places = Mapping[str, Sequence[Tensor | None]]


def save_sizes(
    folder: Path, shares: Sequence[float], ship: Callable[[int, Path], str], places: Sequence[Places]
) -> list[dict[str, int]]:
    """Write the sizes to ``folder`` in one step, and return for each how many bytes its weights take, here and as a bundle alone.

    Args:
        ship: writes the bundle of a size, by its place, to a folder, and returns its hash.
        places: which positions of the largest model's tensors those of each size are made of; what isn't so is stored whole.

    Raises:
        BundleError: a model can't be brought into a bundle.
        OutputError: the folder can't be written.
    """
    told: list[dict[str, Any]] = []
    stored: list[dict[str, int]] = []
    with atomic_folder(folder) as temporary:
        for place, share in enumerate(shares):
            target = temporary / _name(share)
            row: dict[str, Any] = {
                "keep_fraction": share,
                "folder": target.name,
                "sha256": ship(place, target),
                "own": None,
            }
            alone = here = (target / WEIGHTS).stat().st_size
            if places[place]:
                whole = load((temporary / told[0]["folder"] / WEIGHTS).read_bytes())
                content = (target / WEIGHTS).read_bytes()
                parts = _parts(load(content), whole, places[place])
                if _together(parts, whole) == content:
                    save_tensors(parts, target / OWN)
                    (target / WEIGHTS).unlink()
                    row["own"], here = sha256_file(target / OWN), (target / OWN).stat().st_size
            told.append(row)
            stored.append({"size_bytes": here, "size_bytes_alone": alone})
        write_json(temporary / INDEX, sealed_tree({"format": _FORMAT, "sizes": told}))
    return stored


def list_sizes(folder: Path) -> tuple[float, ...]:
    """Return which sizes a folder holds, the largest first; none where it is no such folder.

    Raises:
        BundleError: its list of sizes is damaged.
    """
    return tuple(row["keep_fraction"] for row in _rows(folder)) if (folder / INDEX).exists() else ()


def find_sizes(folder: Path) -> Path:
    """Return the folder of sizes that ``folder`` is, or has: a run's, or a search's; else ``folder`` itself."""
    places = (folder / SIZES / SIZES, folder / SIZES)
    # A run tells what it found of its sizes in a file of the same name, beside their folder.
    return next((place for place in places if (place / INDEX).is_file()), folder)


def size_of_folder(folder: Path) -> float | None:
    """Return which size the folder of one of several holds, by its keep fraction; None where it isn't one.

    Raises:
        BundleError: the list of sizes beside it is damaged.
    """
    if not folder.name.startswith(_KEEP) or not (folder.parent / INDEX).is_file():
        return None
    rows = _rows(folder.parent)
    return next((float(row["keep_fraction"]) for row in rows if row["folder"] == folder.name), None)


def folder_of_size(folder: Path, size: float) -> Path:
    """Return where one size's own files lie.

    Raises:
        BundleError: no such size.
    """
    return folder / str(_row(_rows(folder), folder, size)["folder"])


def _row(rows: Sequence[dict[str, Any]], folder: Path, size: float) -> dict[str, Any]:
    row = next((row for row in rows if row["keep_fraction"] == size), None)
    if row is None:
        there = ", ".join(f"{one['keep_fraction']:g}" for one in rows)
        raise BundleError(f"{folder}: no size {size:g}: expected one of {there}, got {size:g}")
    return row


def read_size(folder: Path, size: float, *, sha256: str | None = None) -> Contents:
    """Return one size as a bundle that was read: every byte is one that its manifest names.

    Args:
        sha256: the hash that the size's bundle must have.

    Raises:
        BundleError: no such size, or a file that is missing or was changed.
    """
    rows = _rows(folder)
    row = _row(rows, folder, size)
    here = folder / row["folder"]
    wanted = row["sha256"] if sha256 is None else sha256
    if row["own"] is None:
        return read_contents(here, sha256=wanted)
    with open_listed(here / OWN) as (file, n_bytes):
        own = file.read(n_bytes)
    parts = _loaded(own, here / OWN)
    whole = read_contents(folder / rows[0]["folder"], sha256=rows[0]["sha256"]).files[WEIGHTS]
    most = read_manifest(here).files[WEIGHTS].size_bytes
    try:
        content = _together(parts, _loaded(whole, folder / rows[0]["folder"] / WEIGHTS), most)
    except (ValueError, LookupError, RuntimeError) as error:
        raise_if_out_of_memory(error)
        raise BundleError(
            f"{here / OWN}: its positions don't fit the largest size: {error}; fetch or make it anew"
        ) from error
    return read_contents(here, sha256=wanted, made={WEIGHTS: content})


def write_size(folder: Path, size: float, out: Path, *, overwrite: bool = False) -> str:
    """Write one size as a bundle of its own, which needs no other, and return its hash; a signature of it goes along.

    Raises:
        BundleError: as :func:`read_size`.
        OutputError: ``out`` can't be written, or something is there and ``overwrite`` isn't given.
    """
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise OutputError(f"{out} is there already: choose another folder, or add --overwrite to replace it")
    contents = read_size(folder, size)
    with atomic_folder(out) as temporary:
        signed = [name for name in (RELEASE, SIGNATURE) if (contents.folder / name).is_file()]
        for name in (MANIFEST, *contents.manifest.files, *signed):
            content = contents.files.get(name)
            if content is None:
                with open_listed(contents.folder / name) as (file, n_bytes):
                    content = file.read(n_bytes)
            (temporary / name).write_bytes(content)
    return contents.manifest.sha256


def _name(share: float) -> str:
    return f"{_KEEP}{share:.6g}"


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / INDEX
    if not path.is_file():
        raise BundleError(f"no sizes at {folder}: it has no {INDEX}; give the folder that prunus sizes wrote")
    try:
        with open_plain(path) as file:
            tree = unsealed_tree(file.read(_LARGEST_INDEX))
        if tree.get("format") != _FORMAT:
            raise BundleError(
                f"{path}: expected format {_FORMAT}, got {tree.get('format')!r}; load it with the prunus that wrote it"
            )
        rows: list[dict[str, Any]] = tree["sizes"]
        for row in rows:
            if row["folder"] != _name(float(row["keep_fraction"])) or not isinstance(row["sha256"], str):
                raise ValueError(f"a size in a folder that isn't called like it: {row['folder']!r}")
        if not rows or rows[0]["own"] is not None:
            raise ValueError("the largest size has no weights")
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path}: expected a list of sizes, as prunus sizes writes it: got {error}") from error
    return rows


def _parts(tensors: Mapping[str, Tensor], whole: Mapping[str, Tensor], places: Places) -> dict[str, Tensor]:
    """Return what a size has to store: its own tensors, and where the others lie in the largest's."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        where = places.get(name)
        if where is None or name not in whole or not _is(whole[name], where, value):
            found[_OWN + name] = value.contiguous()
            continue
        for dim, index in enumerate(where):
            if index is not None:
                found[f"{_PLACES}{dim}/{name}"] = index.to(torch.int32).contiguous()
        if all(index is None for index in where):
            found[f"{_PLACES}0/{name}"] = torch.arange(value.shape[0], dtype=torch.int32)
    return found


def _is(whole: Tensor, where: Sequence[Tensor | None], value: Tensor) -> bool:
    if len(where) != whole.dim() or whole.dtype != value.dtype:
        return False
    for dim, index in enumerate(where):
        if index is not None:
            whole = whole.index_select(dim, index)
    return whole.shape == value.shape and bool(torch.equal(whole, value))


def _together(parts: Mapping[str, Tensor], whole: Mapping[str, Tensor], most: int | None = None) -> bytes:
    """Return the file of weights that the parts and the largest's tensors make.

    Raises:
        ValueError: it would be larger than ``most``, or a name is none of theirs.
    """
    taken: dict[str, dict[int, Tensor]] = {}
    tensors: dict[str, Tensor] = {}
    for key, value in parts.items():
        if key.startswith(_OWN):
            tensors[key.removeprefix(_OWN)] = value
            continue
        dim, _, name = key.removeprefix(_PLACES).partition("/")
        if not key.startswith(_PLACES) or not dim.isdecimal() or name not in whole or value.dtype != torch.int32:
            raise ValueError(f"got a tensor {key[:80]!r}")
        taken.setdefault(name, {})[int(dim)] = value
    for name, places in taken.items():
        found = whole[name]
        for along, index in sorted(places.items()):
            if along >= found.dim() or index.dim() != 1 or len(index) > found.shape[along]:
                raise ValueError(f"positions of {name[:80]!r} along {along}")
            found = found.index_select(along, index)
        tensors[name] = found.contiguous()
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if most is not None and size > most:
        raise ValueError(f"weights of {size} bytes where the manifest says {most}")
    content: bytes = save({name: tensors[name].clone() for name in tensors})
    return content


def _loaded(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        parse_header(content, path)
        return dict(load(content))
    except WeightsError as error:
        raise BundleError(str(error)) from error
    except SafetensorError as error:
        raise BundleError(f"{path}: expected a safetensors file: got {error}") from error
