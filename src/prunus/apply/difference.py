"""Does a smaller model compute what the traced computation does on the same tensors, in the precision that tells most?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.apply.classes.slices import Slices
from prunus.apply.traced.regraph import PrunedGraph
from prunus.apply.traced.reread import Reread
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.quiet import quiet
from prunus.core.runtime import seeded
from prunus.core.structures.forms import tensors_of
from prunus.graph.tracing.remembered import Remembered
from prunus.graph.tracing.states import as_it_was, canonical_states, enlivened, in_precision, one_example, running_on

__all__ = ["DIFFERS", "Trial", "difference", "why_not_run"]

DIFFERS = "its output differs from the traced computation on the same parameters"


@dataclass(frozen=True)
class Trial:
    """The whole model whose cuts are tried, and the traced computations so far, by what they keep.

    ``proven`` are those whose operations the class runs, too: which units stay makes no difference then. ``mute`` are the
    precisions in which the traced computation can't run, so that trying them tells nothing; ``rounds`` holds whether the model
    rounds to less than double precision inside, once that was asked: no cut changes it. ``memory`` is what modules ran in earlier
    traces: much of the model is the same in all of them. ``failures`` are why cuts didn't run on one example; ``alone`` holds
    whether the model itself runs on one, once that was asked. ``slices`` and ``copies`` hold what is left of parameters, and what
    forward may write into, for the next cuts.
    """

    model: nn.Module
    computations: dict[frozenset[tuple[str, int]], fx.GraphModule] = field(default_factory=dict)
    proven: set[fx.GraphModule] = field(default_factory=set)
    mute: set[torch.dtype] = field(default_factory=set)
    rounds: list[bool] = field(default_factory=list)
    memory: Remembered = field(default_factory=Remembered)
    failures: list[str] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)
    slices: Slices = field(default_factory=dict)
    copies: dict[str, tuple[Tensor, int, Tensor]] = field(default_factory=dict)

    def copy_of(self, name: str, value: Tensor) -> Tensor:
        """Return a copy of a parameter's value for forward to run on: the last one, unless something wrote into it."""
        copied, version, source = self.copies.get(name, (value, -1, value))
        if copied._version != version or source.data_ptr() != value.data_ptr():
            copied = value.clone()
            self.copies[name] = copied, copied._version, value
        return copied

    def takes_one(self, few: tuple[tuple[Any, ...], Mapping[str, Any]]) -> bool:
        """Tell whether the model runs on one example, so that a cut that doesn't is wrong; asked from the second failure on."""
        if len(self.failures) > 1 and not self.alone:
            self.alone.append(not why_not_run(self.model, *few, self))
        return self.alone == [True]

    def is_proven(self, counts: Mapping[str, int]) -> bool:
        """Tell whether the class was seen to run the operations of the cut that keeps so many units."""
        return self.computations.get(frozenset(counts.items())) in self.proven


def difference(
    smaller: nn.Module,
    traced: Callable[[], PrunedGraph],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    tolerance: float = 1e-9,
    trial: Trial | None = None,
    reread: Reread | None = None,
    sure: bool = False,
) -> str:
    """Return why the two don't compute the same, up to ``tolerance`` in double precision; empty when they do.

    One example of the batch tells as much as all of them, unless one alone is another case: what differs is looked at on all of
    them, unless that is ``sure``.

    Double precision tells more: an attention scale that follows the head dimension moves the output of an untrained model by less
    than single precision rounds. Where a model can't run in it, or makes single-precision values of its own, less can be asked.
    """
    if any(value.device.type == "meta" for value in smaller.state_dict().values()):
        return ""
    few = one_example(inputs, kwargs)
    if few is not None:
        found = _numeric_difference(smaller, traced, *few, tolerance, trial, reread)
        if found == "" or (sure and found == DIFFERS):
            return found
    return _numeric_difference(smaller, traced, inputs, kwargs, tolerance, trial, reread) or ""


def _numeric_difference(
    smaller: nn.Module,
    traced: Callable[[], PrunedGraph],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tolerance: float,
    trial: Trial | None,
    reread: Reread | None,
) -> str | None:
    """Return why the two differ; None where the traced computation doesn't run, so that there is nothing to compare with."""
    broken = ""
    for dtype, allowed in ((torch.float64, tolerance), (torch.float32, 1e-4)):
        if trial is not None and dtype in trial.mute:
            continue
        values = _own({name: in_precision(value, dtype) for name, value in enlivened(smaller).items()}, smaller, trial)
        given, named = _in_precision((inputs, dict(kwargs)), dtype)
        got, problem = _run(smaller, values, given, named)
        if problem and dtype == torch.float32:
            return problem
        if problem:
            continue
        reference = traced()
        unfolded = {name: values[name] / factor.to(values[name]) for name, factor in reference.folded.items()}
        oracle = reference if reread is None else reread.on(reference, smaller, values, given, named)
        if oracle is None and dtype == torch.float64:
            continue  # it reads the precision, too
        if oracle is None:
            return DIFFERS
        before = broken
        expected, broken = _run(oracle, {**values, **unfolded}, given, named)
        if dtype == torch.float64 and broken:
            continue
        if trial is not None and before and not broken:
            trial.mute.add(torch.float64)
        # A recorded path holds for the old values only (experts that they chose): then there is nothing to compare with.
        if broken:
            return None
        found = _apart(expected, got, allowed)
        if found == DIFFERS and dtype == torch.float64 and not _apart(expected, got, 1e-6):
            known = [] if trial is None else trial.rounds
            if not known:
                with _Coarsest() as coarsest:  # type: ignore[no-untyped-call]
                    _run(smaller, values, given, named)
                    _run(oracle, {**values, **unfolded}, given, named)
                known.append(coarsest.rounds)
            return "" if known[0] else found
        return found
    raise AssertionError


def _own(values: Mapping[str, Tensor], model: nn.Module, trial: Trial | None) -> dict[str, Tensor]:
    """Return ``values`` as tensors that a forward may write: those of a trial are the whole model's."""
    if trial is None:
        return dict(values)
    held = dict(model.named_parameters())
    return {
        n: trial.copy_of(n, v) if n in held and v.data_ptr() == held[n].data_ptr() else v for n, v in values.items()
    }


def why_not_run(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], trial: Trial | None) -> str:
    """Return why ``model`` doesn't run: on one example, and on all of them where it doesn't take one alone."""
    values = _own({name: value.detach() for name, value in canonical_states(model).items()}, model, trial)
    few = one_example(inputs, kwargs)
    problem = "" if few is None else _run(model, values, *few)[1]
    if problem and few is not None and trial is not None:
        trial.failures.append(problem)
        if trial.takes_one(few):
            return problem
    elif few is not None and trial is not None and not trial.alone:
        trial.alone.append(True)  # what a cut of it takes, the model does
    return _run(model, values, inputs, kwargs)[1] if problem or few is None else ""


def _in_precision(values: Any, dtype: torch.dtype) -> Any:
    return pytree.tree_map_only(Tensor, lambda tensor: in_precision(tensor, dtype), values)


class _Coarsest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether any operation of a block rounds to less than double precision."""

    rounds = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(args)):
            return out  # zeros and ones are exact in any precision
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
                self.rounds = True
        return out


@torch.no_grad()
def _run(
    model: nn.Module, values: Mapping[str, Tensor], inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Tensor], str]:
    """Return the output tensors, or why there are none."""
    with as_it_was(model), seeded(0, "shrink"), quiet(model), running_on(model, values):
        try:
            out = model.eval()(*inputs, **kwargs)
        except Exception as error:
            raise_if_out_of_memory(error)
            return [], f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    return tensors_of(out), ""


def _apart(expected: list[Tensor], got: list[Tensor], tolerance: float) -> str:
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape:
            return f"its output has the shape {tuple(other.shape)} instead of {tuple(one.shape)}"
        if one.is_floating_point() and one.numel():
            scale = max(float(one.nan_to_num(posinf=0.0, neginf=0.0).abs().max()), 1e-6)
            if not torch.allclose(
                one, other.to(one.dtype), rtol=10 * tolerance, atol=tolerance * scale, equal_nan=True
            ):
                return DIFFERS
    return ""
