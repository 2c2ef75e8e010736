"""How is a model pruned block by block, with memory for one block and the hidden states only?

Every block runs twice over the calibration batches: once whole, while the second moments of its layers' inputs are summed up,
and once pruned, to make the next block's inputs. Layers that read the same input share one sum, and one factorisation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prunus.core.errors import DataError, ModelError, RecipeError, near
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import clear_leftovers, folder_lock
from prunus.recover import (
    Moments,
    Squares,
    Stacked,
    check_amount,
    input_rows,
    inverse_factor,
    keep_top,
    matrices,
    obs_update,
    set_matrices,
    sparsegpt_prune,
)
from prunus.scale.blocks import Call, Stack, Stop, find_stack, record_calls
from prunus.scale.experts import Products
from prunus.scale.hidden_states import Activations, activations
from prunus.scale.kept_blocks import check_folder, keep, restore
from prunus.scale.layers import LayerReport, layers_of, left_whole

__all__ = ["LayerCriterion", "prune_layerwise"]

LayerCriterion = Literal["magnitude", "wanda", "sparsegpt"]


@dataclass(frozen=True)
class _Options:
    criterion: LayerCriterion
    keep_fraction: float | None
    n_m: tuple[int, int] | None
    refit: bool
    block_size: int
    damping: float

    @property
    def needs_gram(self) -> bool:
        """Whether the second moments of the inputs are needed, each input with each other."""
        return self.criterion == "sparsegpt" or self.refit

    @property
    def needs_inputs(self) -> bool:
        """Whether the calibration batches are needed at all."""
        return self.criterion == "wanda" or self.needs_gram


@torch.no_grad()
def prune_layerwise(
    model: nn.Module,
    batches: Sequence[Any],
    *,
    criterion: LayerCriterion = "sparsegpt",
    keep_fraction: float | None = None,
    n_m: tuple[int, int] | None = None,
    refit: bool = False,
    exclude: Sequence[str] = (),
    blocks: str | None = None,
    block_size: int = 128,
    damping: float = 0.01,
    folder: Path | None = None,
    offload: Path | None = None,
    listener: Listener = silent,
) -> list[LayerReport]:
    """Prune the layers of a stack of blocks in place, and return what became of each.

    Layers are linear ones, convolutions, and experts that lie stacked in one parameter, each of which is judged on the rows that
    its router sends it. An expert that no row of the calibration batches reached stays whole.

    Args:
        model: with a list of blocks that run one after the other; layers outside of it stay whole. It ends in evaluation mode.
        batches: calibration batches: keyword arguments (mappings), positional ones (tuples), or single tensors. Random access is
            enough; they are read one at a time.
        criterion: ``magnitude`` (smallest in the layer), ``wanda`` (absolute value times the norm of the input, smallest in the
        row) or
            ``sparsegpt`` (with compensation).
        keep_fraction: share of each layer that stays.
        n_m: instead: N kept of every M inputs.
        refit: solve for the surviving weights by least squares at the end, row by row: better than the sweep of SparseGPT, and
        slower. exclude: name patterns (fnmatch) of layers that stay whole.
        blocks: the name of the list of blocks; default: found by watching one batch.
        block_size: columns whose mask is chosen at once (``sparsegpt``).
        damping: of the second moments, as a share of their mean.
        folder: keeps a file for each finished block; a call with the same settings goes on after the last one.
        offload: a folder where hidden states wait on the disk instead of in memory.

    Raises:
        RecipeError: a wrong amount, criterion or pattern.
        DataError: no batches, or one that gives NaN or infinite values.
        ModelError: no such stack of blocks, nothing in it to prune, weights that aren't finite, or blocks that can't run twice on
            what they are handed.
        OutputError: ``folder`` holds a run with other settings.

    References:
        Sun et al., ICLR 2024, arXiv:2306.11695 (Wanda); Frantar and Alistarh, ICML 2023, arXiv:2301.00774 (SparseGPT).
    """
    check_amount(keep_fraction, n_m)
    if criterion not in (known := ("magnitude", "wanda", "sparsegpt")):
        raise RecipeError(f"unknown criterion: got {criterion!r}; {near(criterion, known)}")
    if not len(batches):
        raise DataError("pruning layer by layer needs calibration batches: got none")
    model.eval()
    stack = find_stack(model, batches[0], blocks)
    layers = layers_of(model, stack, batches[0], exclude, n_m)
    if not any(layers):
        raise ModelError(
            f"the blocks {stack.name!r} have no linear or convolutional layer to prune (excluded: {list(exclude)})"
        )
    whole = [
        [LayerReport(name, weight.numel(), weight.numel(), float("nan")) for name, weight in names.items()]
        for names in left_whole(stack, layers, exclude)
    ]
    options = _Options(criterion, keep_fraction, n_m, refit, block_size, damping)
    if folder is None:
        return _prune_stack(model, stack, layers, whole, batches, options, None, offload, listener)
    with folder_lock(folder):
        clear_leftovers(folder)
        check_folder(folder, layers, batches, vars(options))
        return _prune_stack(model, stack, layers, whole, batches, options, folder, offload, listener)


def _prune_stack(
    model: nn.Module,
    stack: Stack,
    layers: Sequence[Mapping[str, nn.Module]],
    whole: Sequence[Sequence[LayerReport]],
    batches: Sequence[Any],
    options: _Options,
    folder: Path | None,
    offload: Path | None,
    listener: Listener,
) -> list[LayerReport]:
    started = time.perf_counter()
    listener(Event("start", "blocks", total=len(stack.blocks)))
    reports: list[LayerReport] = []
    with activations(offload) as hidden:
        calls: list[list[Call]] = []
        # Moduli need no inputs, so then no batch goes through the blocks at all.
        for number in range(len(batches) if options.needs_inputs else 0):
            start, found = record_calls(model, stack, batches[number])
            hidden[number] = _finite(start, number, f"before {stack.entry(0)}")
            calls.append(found)
        for number, block in enumerate(stack.blocks):
            mine = [found[number] for found in calls]
            path = None if folder is None else folder / f"block-{number:04d}.safetensors"
            restored = None if path is None else restore(path, layers[number])
            if restored is not None:
                reports += restored
            elif layers[number]:
                done = _prune_block(block, layers[number], mine, hidden, options)
                if path is not None:
                    keep(path, layers[number], done)
                reports += done
            reports += whole[number]
            if any(layers[number + 1 :]):  # the last outputs are nobody's inputs
                for place, call in enumerate(mine):
                    hidden[place] = _finite(call.run(block, hidden[place]), place, f"after {stack.entry(number)}")
            listener(Event("progress", "blocks", done=number + 1, total=len(stack.blocks)))
    listener(Event("end", "blocks", facts={"seconds": time.perf_counter() - started}))
    return reports


def _finite(hidden: Tensor, number: int, where: str) -> Tensor:
    """Refuse a hidden state that nothing can be learned from: one NaN makes every score of a layer NaN."""
    if not bool(torch.isfinite(hidden).all()):
        raise DataError(
            f"calibration batch {number} has NaN or infinite hidden states {where}: look at its values and at the "
            "model's weights, or run the model in a wider type (bfloat16, float32)"
        )
    return hidden


def _prune_block(
    block: nn.Module, layers: Mapping[str, nn.Module], calls: Sequence[Call], hidden: Activations, options: _Options
) -> list[LayerReport]:
    """Prune the layers of one block and return what became of them."""
    seen = _moments(block, list(layers.values()), calls, hidden, options) if options.needs_inputs else {}
    factors: dict[int, list[Tensor]] = {}
    reports = []
    for name, layer in layers.items():
        mine = seen.get(id(layer))
        if options.needs_inputs and mine is None:
            raise ModelError(f"{name} wasn't called on any calibration batch: exclude it")
        weight = matrices(layer)
        grams = mine.mean_gram if isinstance(mine, Moments) else None
        shared = not isinstance(layer, Stacked)
        if shared and grams is not None and options.criterion == "sparsegpt" and id(mine) not in factors:
            factors[id(mine)] = [inverse_factor(gram, options.damping) for gram in grams]
        new, kept = torch.empty_like(weight), 0
        lost = energy = 0.0
        for group, matrix in enumerate(weight):
            gram = None if grams is None else grams[group]
            factor = factors[id(mine)][group] if id(mine) in factors else None
            norms = None if mine is None else mine.mean_squares[group].sqrt()
            _check_finite(name, matrix, norms)
            if isinstance(layer, Stacked) and norms is not None and not bool(norms.any()):
                new[group], kept = matrix, kept + matrix.numel()
                continue
            new[group], mask = _prune_matrix(matrix, norms, gram, factor, options)
            kept += int(mask.sum())
            if gram is not None:
                lost += _energy(new[group] - matrix, gram)
                energy += _energy(matrix, gram)
        set_matrices(layer, new)
        error = lost / energy if energy else float("nan")
        reports.append(LayerReport(name, kept, weight.numel(), error))
    return reports


def _check_finite(name: str, weight: Tensor, norms: Tensor | None) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise ModelError(f"{name}: its weight has NaN or infinite values, which can't be ranked: load it again")
    if norms is not None and not bool(torch.isfinite(norms).all()):
        raise DataError(
            f"{name}: its inputs on the calibration batches are NaN or infinite: run the model in a wider type "
            "(bfloat16, float32), or give other batches"
        )


def _prune_matrix(
    weight: Tensor, norms: Tensor | None, gram: Tensor | None, factor: Tensor | None, options: _Options
) -> tuple[Tensor, Tensor]:
    amount: dict[str, Any] = {"keep_fraction": options.keep_fraction, "n_m": options.n_m}
    if options.criterion == "sparsegpt":
        assert gram is not None
        new, mask = sparsegpt_prune(
            weight, gram, **amount, block_size=options.block_size, damping=options.damping, factor=factor
        )
    elif options.criterion == "wanda":
        assert norms is not None
        mask = keep_top(weight.abs() * norms, **amount, within="row")
        new = weight * mask
    else:
        mask = keep_top(weight.abs(), **amount, within="matrix")
        new = weight * mask
    if options.refit:
        assert gram is not None
        new = obs_update(weight, gram, mask, damping=options.damping)
    return new, mask


def _moments(
    block: nn.Module, layers: Sequence[nn.Module], calls: Sequence[Call], hidden: Activations, options: _Options
) -> dict[int, Moments | Squares]:
    """Return what each layer's inputs look like by the layer's id; layers that read the same tensor share theirs."""
    owner: dict[int, Moments | Squares] = {}
    counted: dict[Any, tuple[Tensor, Moments | Squares]] = {}
    stacked = {id(layer.weight): layer for layer in layers if isinstance(layer, Stacked)}
    called: dict[int, int] = {id(layer): 0 for layer in layers if not isinstance(layer, Stacked)}
    stops = False

    def new(layer: nn.Module) -> Moments | Squares:
        return Moments.of(layer) if options.needs_gram else Squares.of(layer)

    def see_expert(weight: nn.Parameter, summed: int, expert: int, rows: Tensor) -> None:
        layer = stacked[id(weight)]
        if summed != layer.summed:
            raise ModelError(f"experts of shape {tuple(weight.shape)} are read in two ways: exclude them")
        owner.setdefault(id(layer), new(layer)).add_to(expert, rows.detach())

    def see(layer: nn.Module, given: tuple[Any, ...]) -> None:
        inputs = given[0].detach()
        # The same bytes, not written to in between; the tensor is held, so that no other takes its place in memory.
        place = (inputs.data_ptr(), inputs.shape, inputs._version, id(layer) if hasattr(layer, "kernel_size") else 0)
        if id(layer) not in owner:
            owner[id(layer)] = counted[place][1] if place in counted else new(layer)
        mine = owner[id(layer)]
        if place not in counted or counted[place][1] is not mine:
            mine.add(input_rows(layer, inputs))
            counted[place] = (inputs, mine)
        called[id(layer)] += 1
        if stops and all(called.values()):
            raise Stop

    handles = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        for number, call in enumerate(calls):
            with contextlib.suppress(Stop), Products([layer.weight for layer in stacked.values()], see_expert):
                call.run(block, hidden[number])
            # A block whose layers run once each has shown all when the last one starts: that one, the widest, needn't run.
            stops = not stacked and all(count == 1 for count in called.values())
            counted.clear()
            called = dict.fromkeys(called, 0)
    finally:
        for handle in handles:
            handle.remove()
    return owner


def _energy(weight: Tensor, gram: Tensor) -> float:
    weight = weight.to(gram.dtype)
    return float(((weight @ gram) * weight).sum())
