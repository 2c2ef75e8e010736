"""How does a model come out of a bundle's manifest: from its builder and the edits, or as the traced computation?

What is built is compared with the tensors that the manifest names before any of them is filled in. The same comparison can be made
on the meta device, where tensors have sizes and no values: :func:`parameter_names` asks whether the architecture and the tensors
fit each other without a weight in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prunus import models
from prunus.apply.edits import Edits, materialize, rebuild
from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.code.imports import call
from prunus.core.errors import BundleError, PrunusError
from prunus.core.recipes import recipe
from prunus.ship.graph_files.graph_file import read_graph, state_names
from prunus.ship.graph_files.input_fit import Guard, check_runs
from prunus.ship.graph_limits import GraphLimits, usual_limits
from prunus.ship.inputs import keywords_of
from prunus.ship.manifest import GRAPH, GRAPH_TENSORS, WEIGHTS, Contents, Manifest, TensorEntry
from prunus.ship.pack import DTYPES, check_storable, unpack

__all__ = ["assemble", "assemble_graph", "parameter_names", "skeleton"]


def skeleton(folder: Path, manifest: Manifest, builder: Callable[..., nn.Module] | None) -> nn.Module:
    """Return the dense structure; a built-in one lies on the meta device where possible, so a wrong size costs nothing."""
    source = manifest.model
    hint = "; its graph needs no builder: load it with prefer='graph'" if GRAPH in manifest.files else ""
    if builder is not None:
        offered = {"input_shape": manifest.input_shape, "n_outputs": manifest.n_outputs}
        built = call(
            builder, source.args, what="the builder", key="the manifest's args", error=BundleError, offered=offered
        )
        if not isinstance(built, nn.Module):
            raise BundleError(f"the builder must return an nn.Module: got {type(built).__name__}")
        return built
    assert source.builder is not None, "such a bundle loads as a graph"
    try:
        config = recipe.Model(builder=source.builder, args=source.args)

        def build() -> nn.Module:
            return models.build(config, input_shape=manifest.input_shape, n_outputs=manifest.n_outputs, seed=0)

        if source.needs_code:
            return build()
        with torch.device("meta"):
            model = build()
        # Buffers outside the state dict can't be filled from the weights: they must be computed for real.
        return build() if {name for name, _ in model.named_buffers()} - set(model.state_dict()) else model
    except PrunusError as error:
        raise BundleError(f"{folder}: the model of this bundle can't be built: {error}{hint}") from error


def assemble(contents: Contents, skeleton: Callable[[], nn.Module]) -> nn.Module:
    """Return the model: the skeleton, made smaller, with the weights in it.

    Raises:
        BundleError: skeleton, edits and weights don't fit each other.
    """
    folder, manifest = contents.folder, contents.manifest
    edits = Edits.from_dict(manifest.edits)
    model = rebuild(skeleton(), edits)
    entries = _check_fit(model, folder, manifest)
    state = unpack(contents.files[WEIGHTS], manifest.tensors, folder / WEIGHTS)
    materialize(model)
    model.load_state_dict({name: state[name] for name in entries}, strict=True)
    for name, parameter in model.named_parameters():  # a buffer may be infinite: masks of attention are
        try:
            check_storable(name, parameter)
        except BundleError as error:
            raise BundleError(f"{folder / WEIGHTS}: {error}") from error
    if edits.kept_inputs is not None:
        kept = getattr(model, "kept")  # noqa: B009 - rebuild made it a SelectInputs
        if tuple(kept.tolist()) != edits.kept_inputs or edits.kept_inputs[-1] >= manifest.input_shape[0]:
            raise BundleError(
                f"{folder}: kept_inputs must be the same in edits and weights and below {manifest.input_shape[0]}: "
                f"got {list(edits.kept_inputs)[-3:]} and {kept.tolist()[-3:]}"
            )
    return model


def assemble_graph(contents: Contents, device: str = "cpu", limits: GraphLimits | None = None) -> PrunedGraph:
    """Return the traced computation with the weights in it; it checks what it is given each time that it runs.

    Raises:
        BundleError: the graph isn't one, doesn't fit the weights, or takes more than ``limits`` allow.
    """
    state = unpack(contents.files[WEIGHTS], contents.manifest.tensors, contents.folder / WEIGHTS)
    limits = usual_limits() if limits is None else limits
    graph = _graph_on(state, contents, device, limits)
    graph.guard = Guard(limits)
    return graph


def _graph_on(state: Mapping[str, Tensor], contents: Contents, device: str, limits: GraphLimits) -> PrunedGraph:
    """Return the traced computation on tensors, which may lie on the meta device."""
    path, manifest = contents.folder / GRAPH, contents.manifest
    tree = contents.json(GRAPH, max_rows=limits.n_nodes)
    try:
        # What was stored for the graph alone comes before the state dict's tensor of that name.
        found = {
            n: key
            for n in state_names(tree, most_nodes=limits.n_nodes)
            for key in (n, GRAPH_TENSORS + n)
            if key in state
        }
        tensors = {name: state[key] for name, key in found.items()}
        takes, n_outputs = manifest.takes, manifest.n_output_tensors
        graph = read_graph(
            tree,
            tensors,
            device=device,
            most_nodes=limits.n_nodes,
            n_inputs=len(takes),
            n_outputs=n_outputs,
            keywords=keywords_of(takes),
        )
        check_runs(graph, takes, limits)
        return graph
    except BundleError as error:
        raise BundleError(f"{path}: {error}; fetch or make the bundle anew") from error


def parameter_names(contents: Contents, limits: GraphLimits | None = None) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return which stored tensors are parameters, and what the tensors were compared with: ``graph``, ``builder``, both or nothing.

    Types and shapes are those of the manifest; the weights needn't be there, and no memory is taken for them. A builder that is
    code outside of prunus isn't run.

    Raises:
        BundleError: the traced computation or the built-in model doesn't fit the tensors that the manifest names.
    """
    folder, manifest = contents.folder, contents.manifest
    parameters: set[str] = set()
    compared: list[str] = []
    if GRAPH in manifest.files:
        state = {
            name: torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="meta")
            for name, entry in manifest.tensors.items()
        }
        graph = _graph_on(state, contents, "meta", usual_limits() if limits is None else limits)
        parameters |= {name for name, _ in graph.named_parameters(remove_duplicate=False)}
        compared.append("graph")
    if manifest.edits is not None and not manifest.model.needs_code:
        model = rebuild(skeleton(folder, manifest, None), Edits.from_dict(manifest.edits))
        _check_fit(model, folder, manifest)
        parameters |= {name for name, _ in model.named_parameters(remove_duplicate=False)}
        compared.append("builder")
    return frozenset(parameters & manifest.tensors.keys()), tuple(compared)


def _check_fit(model: nn.Module, folder: Path, manifest: Manifest) -> dict[str, TensorEntry]:
    """Return the entries of the manifest that are the built model's, which has these and no others."""
    reserved = GRAPH_TENSORS if GRAPH in manifest.files else ()  # then no tensor of the model has such a name
    entries = {name: entry for name, entry in manifest.tensors.items() if not name.startswith(reserved)}
    expected = {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
    found = {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in model.state_dict().items()}
    if expected != found:
        odd = next(name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name))
        raise BundleError(
            f"{folder}: the built model doesn't fit the weights: expected {odd!r} as {_shown(expected.get(odd))}, "
            f"got {_shown(found.get(odd))}; was the builder changed since?"
        )
    return entries


def _shown(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[0]} {list(tensor[1])}"
