"""How is a model saved so that the same seed gives the same bytes, and what was saved surely loads?

Saving loads what it wrote and compares it with the model before anything is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from prunus import models
from prunus.apply.edits import diff
from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.calls import call
from prunus.core.errors import BundleError, RecipeError, raise_if_out_of_memory
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import atomic_folder, write_json, write_text
from prunus.core.files.sealed import canonical_json
from prunus.core.quiet import quiet
from prunus.core.recipes import recipe
from prunus.core.runtime import seeded, versions
from prunus.core.tensors import save_tensors
from prunus.graph.tracing.states import duplicate
from prunus.ship.assembly import assemble, assemble_graph
from prunus.ship.card import BILL, CARD, CardFacts, bill_of_materials, model_card
from prunus.ship.export import Exported, export, printable, same_outputs, stable_line
from prunus.ship.inputs import (
    InputEntry,
    Inputs,
    SpanEntry,
    called_on,
    described,
    floats,
    in_order,
    is_scaled,
    made,
    output_tensors,
    settled,
    with_spans,
)
from prunus.ship.manifest import (
    FORMAT,
    GRAPH,
    GRAPH_TENSORS,
    MANIFEST,
    WEIGHTS,
    BuiltBy,
    FileEntry,
    Manifest,
    Proof,
    explain,
    manifest_sha256,
    manifest_tree,
    read_contents,
    read_manifest,
)
from prunus.ship.pack import check_storable, pack
from prunus.ship.pretrained_entry import pretrained_entry
from prunus.tasks import Regression, Task, options_of, unscaled

if TYPE_CHECKING:
    from prunus.data import Columns, Scaler

__all__ = ["save_bundle", "write_card"]

_NO_HASH = Manifest.model_fields["sha256"].default


def save_bundle(
    folder: Path,
    model: nn.Module,
    *,
    built_by: recipe.Model | None,
    dense: nn.Module | None = None,
    input_shape: Sequence[int],
    n_outputs: int,
    task: str | Task,
    example: Any = None,
    class_names: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    columns: Columns | None = None,
    scaler: Scaler | None = None,
    target_scaler: Scaler | None = None,
    facts: Mapping[str, Any] | None = None,
    card: CardFacts | None = None,
) -> str:
    """Write ``model`` to ``folder`` in one step (a bundle that is there stays until then) and return the bundle's hash.

    The traced computation of the model goes along, so that whoever can't or won't build its class can load it all the same. Where
    there is none that gives the same outputs, the manifest says why (``no_graph``).

    Args:
        model: of the class of ``dense``, or itself a traced computation, which needs no builder.
        built_by: how the dense model is built. None when only a model object is known: whoever wants the class again then has to
            pass a ``builder``, and ``dense`` is needed here.
        dense: a model with the dense structure; default: what ``built_by`` builds.
        task: what the model was trained for. A registered task's options go along; one of your own is Python code, which has to
            be given again to read answers.
        example: two or more examples of what the model takes, the batch first: a tensor, a tuple (positional) or a mapping
            (keywords); default: float32 of ``input_shape``. Token ids and images in bytes need it, and models of several inputs.
        columns: what the features of a table are made of; ``feature_names`` are theirs.
        target_scaler: what a regression's outputs are undone with.
        facts: plain values to keep in the manifest. Times don't belong here: the same seed must give the same hash.
        card: what the model card and the bill of materials say beside the manifest; default: that nothing else is known.

    Raises:
        BundleError: the model can't be expressed as edits of the dense one, has NaN weights, or doesn't come back as it was; or
            it is a traced computation that can't be written.
        OutputError: the disk is full or the folder can't be written.
    """
    scaled = target_scaler is not None and target_scaler.scales  # predict undoes that
    task_name, task_options, own_task = _described_task(task, tuple(class_names), scaled=scaled)
    takes = floats(input_shape) if example is None else described(example)
    edits = None
    if isinstance(model, PrunedGraph):
        takes = in_order(takes, model.signature)
    else:
        takes = _of_any_size(model, takes)
        dense = _dense(built_by, input_shape, n_outputs) if dense is None else dense
        edits = diff(dense, model)
    if scaler is not None and scaler.scales and not is_scaled(takes):
        raise BundleError(
            "only one input of fractional numbers is scaled: whole numbers and several inputs go without a scaler"
        )
    by_place = bool(feature_names) or (edits is not None and edits.kept_inputs is not None)
    fixed = settled(takes, () if scaler is None else scaler.mean.shape, columns=by_place)
    graph, no_graph = _graph_of(model, takes, fixed, needed=edits is None)
    if graph is not None:
        takes = with_spans(takes, graph.spans)
    more = {} if graph is None else {GRAPH_TENSORS + name: tensor for name, tensor in graph.constants.items()}
    stored, tensors = pack(model, more)
    args = {} if built_by is None else dict(built_by.args)
    _check_json(args, "the model's args")
    _check_json(dict(facts or {}), "facts")
    known = versions()
    card = CardFacts() if card is None else card
    with atomic_folder(folder) as temporary:
        save_tensors(stored, temporary / WEIGHTS)
        if graph is not None:
            write_text(temporary / GRAPH, graph.text)
        try:
            manifest = Manifest(
                format=FORMAT,
                versions={name: known[name] for name in ("prunus", "torch", "safetensors")},
                model=BuiltBy(builder=None if built_by is None else built_by.builder, args=args),
                edits=None if edits is None else edits.to_dict(),
                tensors=tensors,
                task=task_name,
                task_options=task_options,
                own_task=own_task,
                input_shape=tuple(input_shape),
                n_outputs=n_outputs,
                class_names=tuple(class_names),
                feature_names=tuple(feature_names),
                columns=columns,
                scaler=None if scaler is None else scaler.to_dict(),
                target_scaler=None if target_scaler is None else target_scaler.to_dict(),
                no_graph=no_graph,
                inputs=() if takes == floats(input_shape) else takes,
                n_output_tensors=_n_outputs(model, takes),
                pretrained=pretrained_entry(model),
                facts=dict(facts or {}),
                proof=None if card.proof is None else Proof.model_validate(card.proof),
                files={path.name: _entry(path) for path in sorted(temporary.iterdir())},
            )
        except ValidationError as error:
            raise BundleError(f"the model can't be bundled with these facts: {explain(error)}") from error
        sha256 = _finish(temporary, manifest, card)
        _check_comes_back(temporary, model, None if edits is None else dense)
        return sha256


def write_card(folder: Path, card: CardFacts) -> str:
    """Say anew on a bundle's card what is known of its model, in one step; return the bundle's new hash.

    What was found out after it was saved (of files that were made of it, say) gets there so; the model's own files stay, as the
    manifest has them.

    Raises:
        BundleError: a file isn't what the bundle's manifest says, or none of its files: a signature would sign another card.
        OutputError: the folder can't be written.
    """
    manifest = read_manifest(folder)
    if others := sorted({path.name for path in folder.iterdir()} - {MANIFEST, *manifest.files}):
        raise BundleError(
            f"{folder}: expected the bundle's own files only, since a card that is written anew makes another bundle of it: got "
            f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}; move it away, and sign the bundle afterwards"
        )
    with atomic_folder(folder) as temporary:
        files = {name: entry for name, entry in manifest.files.items() if name not in (CARD, BILL)}
        for name in files:
            shutil.copy2(folder / name, temporary / name, follow_symlinks=False)
        proof = None if card.proof is None else Proof.model_validate(card.proof)
        bare = manifest.model_copy(update={"files": files, "proof": proof, "sha256": _NO_HASH})
        sha256 = _finish(temporary, bare, card)
        try:
            read_contents(temporary, sha256=sha256)
        except BundleError as error:
            raise BundleError(str(error).replace(str(temporary), str(folder))) from error
        return sha256


def _finish(folder: Path, manifest: Manifest, card: CardFacts) -> str:
    """Write what describes the files of a manifest beside them in ``folder``, and return the bundle's hash."""
    write_text(folder / CARD, model_card(manifest, card))
    write_json(folder / BILL, bill_of_materials(manifest, card))
    files = {**manifest.files, **{name: _entry(folder / name) for name in (CARD, BILL)}}
    manifest = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    manifest = manifest.model_copy(update={"sha256": manifest_sha256(manifest)})
    write_json(folder / MANIFEST, manifest_tree(manifest))
    return manifest.sha256


def _described_task(
    task: str | Task, class_names: tuple[str, ...], *, scaled: bool
) -> tuple[str, dict[str, Any], str | None]:
    """Return the registered task that reads answers, its options, and what a task of the user's own is called."""
    if isinstance(task, str):
        return task, {}, None
    reader = task.reader
    if reader is None:
        return Regression.name, {}, printable(f"{type(task).__module__}:{type(task).__qualname__}")
    try:
        options = options_of(unscaled(reader) if scaled else reader)
    except RecipeError as error:
        raise BundleError(str(error)) from error
    if reader.class_names == class_names:
        options.pop("class_names", None)
    return reader.name, options, None


def _dense(built_by: recipe.Model | None, input_shape: Sequence[int], n_outputs: int) -> nn.Module:
    if built_by is None:
        raise BundleError(
            "a bundle needs built_by (how the dense model is built) or dense (a model of that structure): got neither"
        )
    return models.build(built_by, input_shape=tuple(input_shape), n_outputs=n_outputs, seed=0)


def _graph_of(
    model: nn.Module, takes: Inputs, fixed: Collection[tuple[int, int]], *, needed: bool
) -> tuple[Exported | None, str | None]:
    """Return the graph that goes along, or why there is none."""
    try:
        graph = export(model, takes, fixed)
        for name, tensor in graph.constants.items():
            check_storable(name, tensor)
        if odd := [name for name in model.state_dict() if name.startswith(GRAPH_TENSORS)]:
            raise BundleError(f"the model has a tensor {odd[0]!r}, and names like that belong to the graph")
        return graph, None
    except BundleError as error:
        if needed:
            raise
        return None, printable(str(error))
    except Exception as error:
        raise_if_out_of_memory(error)
        if needed:
            raise BundleError(f"the traced computation can't be written: {stable_line(error)}") from error
        return None, stable_line(error)


def _of_any_size(model: nn.Module, takes: Inputs) -> Inputs:
    """Return the description with the sizes of listed tensors free, but for the first, where larger and smaller ones are taken.

    No traced computation says for which sizes it holds: the class itself does when it is called.
    """
    free = tuple(_freed(number, entry) if entry.listed else entry for number, entry in enumerate(takes))
    if free == takes:
        return takes
    twin = duplicate(model).cpu().eval()
    with quiet(twin), torch.no_grad(), seeded(0, "bundle", "sizes"):
        for scale in (1.5, 0.75):
            others = tuple(_scaled(entry, scale) if entry.listed else entry for entry in free)
            try:
                called_on(twin, made(others, 2, "sizes"))
            except Exception as error:
                raise_if_out_of_memory(error)
                return takes
    return free


def _freed(number: int, entry: InputEntry) -> InputEntry:
    spans = [SpanEntry(name=f"of_{number}_{dim}") if dim else None for dim in range(len(entry.shape))]
    return entry.model_copy(update={"spans": tuple(spans) if any(spans) else ()})


def _scaled(entry: InputEntry, scale: float) -> InputEntry:
    first, *rest = entry.shape
    return entry.model_copy(update={"shape": (first, *(max(round(scale * size), 1) for size in rest))})


def _n_outputs(model: nn.Module, takes: Inputs) -> int:
    """Return how many tensors the model gives, of each example where it answers with a list of such.

    1 where it fails on what it is said to take, which is noticed elsewhere.
    """
    twin = duplicate(model).cpu().eval()
    with quiet(twin), torch.no_grad(), seeded(0, "bundle", "check"):
        try:
            answer = call(twin, made(takes, 2, "check"))
            each = any(entry.listed for entry in takes) and isinstance(answer, list) and len(answer) == 2
            return len(output_tensors(answer[0] if each else answer))
        except Exception as error:
            raise_if_out_of_memory(error)
            return 1


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_file(path), size_bytes=path.stat().st_size)


def _check_comes_back(folder: Path, model: nn.Module, dense: nn.Module | None) -> None:
    """Raise unless the bundle that was just written gives the weights bit for bit and the outputs of ``model``."""
    contents = read_contents(folder)
    if dense is None:  # what it computes was compared when it was exported
        loaded: nn.Module = assemble_graph(contents)
    else:
        loaded = assemble(contents, lambda: duplicate(dense).cpu()).eval()
    original = duplicate(model).cpu().eval()
    for name, tensor in original.state_dict().items():
        if not _same_bits(loaded.state_dict()[name], tensor):
            raise BundleError(
                f"the bundle wouldn't give {name!r} back as it is: nothing was written; please report this"
            )
    if dense is None:
        return
    inputs = made(contents.manifest.takes, 2, "check")
    outputs = []
    for candidate in (original, loaded):
        with torch.no_grad(), seeded(0, "bundle", "check"):
            outputs.append(called_on(candidate, inputs))
    if not same_outputs(outputs[0], outputs[1]):
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
