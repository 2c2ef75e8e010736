"""How is a model saved so that the same seed gives the same bytes, and what was saved surely loads?

Saving loads what it wrote and compares it with the model before anything is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from prunus import models
from prunus.apply.edits import diff
from prunus.core import recipe
from prunus.core.errors import BundleError
from prunus.core.files import atomic_folder, sha256_file, write_json
from prunus.core.runtime import generator, seeded, versions
from prunus.core.tensors import save_tensors
from prunus.ship.bundle import assemble
from prunus.ship.manifest import (
    FORMAT,
    MANIFEST,
    WEIGHTS,
    BuiltBy,
    FileEntry,
    Manifest,
    canonical_json,
    check_files,
    explain,
    manifest_sha256,
    manifest_tree,
    read_manifest,
)
from prunus.ship.pack import pack

if TYPE_CHECKING:
    from prunus.data import Scaler

__all__ = ["save_bundle"]


def save_bundle(
    folder: Path,
    model: nn.Module,
    *,
    built_by: recipe.Model | None,
    dense: nn.Module | None = None,
    input_shape: Sequence[int],
    n_outputs: int,
    task: Literal["classification", "regression"],
    class_names: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    scaler: Scaler | None = None,
    target_scaler: Scaler | None = None,
    cuts: Sequence[Mapping[str, Sequence[int]]] | None = None,
    uncut: nn.Module | None = None,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Write ``model`` to ``folder`` in one step (a bundle that is there stays until then) and return the bundle's hash.

    Args:
        built_by: how the dense model is built. None when only a model object is known: whoever loads the bundle then has to
            pass a ``builder``, and ``dense`` is needed here.
        dense: a model with the dense structure; default: what ``built_by`` builds.
        target_scaler: what a regression's outputs are undone with.
        cuts: for a model that is the traced computation: what each round kept of every group, in order.
        uncut: with ``cuts``: the model before the first cut, if that isn't ``dense`` (it lost input features).
        facts: plain values to keep in the manifest. Times don't belong here: the same seed must give the same hash.

    Raises:
        BundleError: the model can't be expressed as edits of the dense one, has NaN weights, or doesn't come back as it was.
        OutputError: the disk is full or the folder can't be written.
    """
    if dense is None:
        if built_by is None:
            raise BundleError(
                "a bundle needs built_by (how the dense model is built) or dense (a model of that structure): got neither"
            )
        dense = models.build(built_by, input_shape=tuple(input_shape), n_outputs=n_outputs, seed=0)
    edits = diff(dense, model if cuts is None else uncut or dense)
    stored, tensors = pack(model)
    args = {} if built_by is None else dict(built_by.args)
    _check_json(args, "the model's args")
    _check_json(dict(facts or {}), "facts")
    known = versions()
    with atomic_folder(folder) as temporary:
        save_tensors(stored, temporary / WEIGHTS)
        size = (temporary / WEIGHTS).stat().st_size
        try:
            manifest = Manifest(
                format=FORMAT,
                versions={name: known[name] for name in ("prunus", "torch", "safetensors")},
                model=BuiltBy(builder=None if built_by is None else built_by.builder, args=args),
                edits=edits.to_dict(),
                tensors=tensors,
                task=task,
                input_shape=tuple(input_shape),
                n_outputs=n_outputs,
                class_names=tuple(class_names),
                feature_names=tuple(feature_names),
                scaler=None if scaler is None else scaler.to_dict(),
                target_scaler=None if target_scaler is None else target_scaler.to_dict(),
                cuts=None if cuts is None else tuple({k: list(v) for k, v in cut.items()} for cut in cuts),
                facts=dict(facts or {}),
                files={WEIGHTS: FileEntry(sha256=sha256_file(temporary / WEIGHTS), size_bytes=size)},
            )
        except ValidationError as error:
            raise BundleError(f"the model can't be bundled with these facts: {explain(error)}") from error
        write_json(temporary / MANIFEST, manifest_tree(manifest))
        _check_comes_back(temporary, model, dense)
        return manifest_sha256(manifest)


def _check_comes_back(folder: Path, model: nn.Module, dense: nn.Module) -> None:
    """Raise unless the bundle that was just written gives the weights bit for bit and the outputs of ``model``."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    loaded = assemble(folder, manifest, lambda: copy.deepcopy(dense).cpu()).eval()
    original = copy.deepcopy(model).cpu().eval()
    for name, tensor in original.state_dict().items():
        if not _same_bits(loaded.state_dict()[name], tensor):
            raise BundleError(
                f"the bundle wouldn't give {name!r} back as it is: nothing was written; please report this"
            )
    inputs = torch.randn(2, *manifest.input_shape, generator=generator(0, "bundle", "check"))
    outputs = []
    for candidate in (original, loaded):
        with torch.no_grad(), seeded(0, "bundle", "check"):
            outputs.append(candidate(inputs))
    if outputs[0].shape != outputs[1].shape or not torch.allclose(
        outputs[0], outputs[1], rtol=1e-4, atol=1e-5, equal_nan=True
    ):
        raise BundleError(
            "the model that the bundle gives back has other outputs than the one that was saved, so nothing was written: "
            "something that isn't a parameter, a buffer or a plain setting was changed in the model"
        )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8))


def _check_json(value: Any, what: str) -> None:
    try:
        canonical_json(value)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{what} must be plain values that JSON can hold: {error}") from error
