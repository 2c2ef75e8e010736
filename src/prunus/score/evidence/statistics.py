"""How are statistics of inputs and outputs added up over batches, so that the size of a batch doesn't matter?

Memory: one number per input feature (norms) or output unit (moments), and features squared per layer for the grams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.errors import DataError
from prunus.data.sources.source import row_chunks
from prunus.score.criteria.criterion import Need
from prunus.score.evidence.pieces import Sums, named, under

__all__ = ["Grams", "Moments", "Norms"]

_PATCH_NUMBERS = 2**24
"""A convolution's patches are made for so many numbers at a time: 64 MiB in single precision."""

CANCELS = 30.0
"""How many times its variance a squared mean may be before the difference of the two loses too many digits."""

Place = Callable[[Tensor], Tensor]


class Norms:
    """The Euclidean norm of every input feature over all examples and positions."""

    def __init__(self) -> None:
        self._squares: dict[str, Tensor] = {}
        self._last: tuple[Tensor, int, Tensor] | None = None

    def add(self, name: str, given: Tensor, axis: int, shape: tuple[int, ...], place: Place | None) -> None:
        """Add a batch of inputs whose features lie along ``axis``; the norms will have ``shape`` after ``place``."""
        squares = self._squares_of(given, axis)
        placed = (squares if place is None else place(squares)).view(shape)
        self._squares[name] = self._squares[name] + placed if name in self._squares else placed

    def results(self) -> dict[str, Tensor]:
        """Return the norms by weight."""
        return {name: squares.sqrt() for name, squares in self._squares.items()}

    def sums(self) -> Sums:
        """Return the squares, each in memory of its own."""
        return {name: squares.clone() for name, squares in self._squares.items()}

    def join(self, sums: Sums) -> None:
        """Add what another has added up."""
        for name, squares in sums.items():
            self._squares[name] = self._squares[name] + squares if name in self._squares else squares

    def _squares_of(self, given: Tensor, axis: int) -> Tensor:
        """Several weights often read one tensor (query, key, value): it is summed once."""
        if self._last is not None and self._last[1] == axis and _same(self._last[0], given):
            return self._last[2]
        squares = _sum_of_squares(*_rows(given, axis % given.dim()))
        self._last = given, axis, squares
        return squares


class Grams:
    """The mean outer product of a layer's inputs with themselves: ``(features, features)``, convolutions ``(groups, k, k)``."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._totals: dict[str, Tensor] = {}
        self._n_rows: dict[str, int] = {}
        self._shape: dict[str, tuple[int, ...]] = {}

    def add(self, name: str, given: Tensor, shape: tuple[int, ...]) -> None:
        """Add ``(rows, features)``."""
        rows = given.reshape(-1, given.shape[-1]).to(_fine(given))
        self._add(name, rows.t() @ rows, rows.sum(dim=0), len(rows), shape)

    def add_patches(
        self,
        name: str,
        given: Tensor,
        weight: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        """Add the patches that a convolution reads, some examples at a time."""
        shape = (1 if groups == 1 else weight.shape[0], *weight.shape[1:])
        step = max(1, _PATCH_NUMBERS // (given[0].numel() * weight[0, 0].numel()))
        for part in row_chunks(given.to(_fine(given)), step):
            rows = _patches(part, weight.shape[2:], stride, padding, dilation, groups)
            self._add(name, rows.transpose(1, 2) @ rows, rows.sum(dim=1), rows.shape[1], shape)

    def results(self) -> dict[str, Tensor]:
        """Return the mean outer products by weight."""
        return {name: total / self._n_rows[name] for name, total in self._sums.items()}

    def means(self) -> dict[str, Tensor]:
        """Return the mean inputs by weight: ``(features,)``, convolutions ``(groups, k)``."""
        return {name: total / self._n_rows[name] for name, total in self._totals.items()}

    def sums(self) -> Sums:
        """Return all that was added up."""
        rows = {name: torch.tensor(n) for name, n in self._n_rows.items()}
        shape = {name: torch.tensor(shape) for name, shape in self._shape.items()}
        return {
            **named("products", self._sums),
            **named("inputs", self._totals),
            **named("rows", rows),
            **named("shape", shape),
        }

    def join(self, sums: Sums) -> None:
        """Add what another has added up; its tensors are taken over."""
        inputs, rows, shape = (under(what, sums) for what in ("inputs", "rows", "shape"))
        for name, total in under("products", sums).items():
            self._add(name, total, inputs[name], int(rows[name]), tuple(shape[name].tolist()))

    def inverse_diagonals(self, damping: float) -> dict[str, Tensor]:
        """Return the diagonal of each inverse, with ``damping`` times the mean diagonal entry added to the diagonal.

        Raises:
            DataError: without damping there are fewer rows than features, or the features depend on each other.
        """
        found = {}
        for name, gram in self.results().items():
            n_features, n_rows = gram.shape[-1], self._n_rows[name]
            if damping == 0 and n_rows < n_features:
                raise DataError(
                    f"obs without damping needs at least {n_features} rows of inputs at {name!r}, as many as it has input "
                    f"features: got {n_rows}; raise data.split.calibration, or give damping"
                )
            exact = gram.double().reshape(-1, n_features, n_features)
            diagonal = exact.diagonal(dim1=1, dim2=2)
            extra = damping * diagonal.mean(dim=1, keepdim=True)
            # A feature that never differs from zero tells nothing: its weights are free to go.
            dead = diagonal == 0
            whole = exact + torch.diag_embed(extra + dead.double())
            factor, problem = torch.linalg.cholesky_ex(whole)
            if bool(problem.any()):
                raise DataError(
                    f"the inputs of {name!r} depend on each other, so that obs can't invert their outer products: "
                    f"got {n_rows} rows of {n_features} features; give damping (0.01, say)"
                )
            inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
            found[name] = self._placed(name, torch.where(dead, torch.inf, inverse).to(gram.dtype))
        return found

    def _placed(self, name: str, values: Tensor) -> Tensor:
        shape = self._shape[name]
        each = torch.Size(shape).numel() // values.numel()
        return values.repeat_interleave(each, dim=0).view(shape)

    def _add(self, name: str, total: Tensor, inputs: Tensor, n_rows: int, shape: tuple[int, ...]) -> None:
        self._totals[name] = self._totals[name].add_(inputs) if name in self._totals else inputs
        self._shape[name] = shape
        self._n_rows[name] = self._n_rows.get(name, 0) + n_rows
        self._sums[name] = self._sums[name].add_(total) if name in self._sums else total


def _patches(
    given: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Return what a convolution multiplies its weight with: ``(groups, examples * positions, channels / groups * kernel)``."""
    values = functional.pad(given, [n for p in reversed(padding) for n in (p, p)])
    n_space = len(kernel)
    for d, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        values = values.unfold(2 + d, (size - 1) * gap + 1, step)[..., ::gap]
    # (examples, channels, positions..., kernel...) -> (groups, examples, positions..., channels / groups, kernel...)
    values = values.reshape(len(given), groups, -1, *values.shape[2:])
    order = [1, 0, *range(3, 3 + n_space), 2, *range(3 + n_space, 3 + 2 * n_space)]
    moved = values.permute(order)
    rows = torch.Size(moved.shape[1 : 2 + n_space]).numel()
    return moved.reshape(groups, rows, -1)


class Moments:
    """Of every output unit: the share above zero, the mean absolute value and the variance, over examples and positions."""

    def __init__(self, needs: Collection[Need]) -> None:
        self._needs = frozenset(needs)
        self._dim: dict[str, tuple[int, tuple[int, ...], torch.device]] = {}
        self._n: dict[str, Tensor] = {}
        self._sums: dict[tuple[str, str], Tensor] = {}

    def expect(self, name: str, dim: int, weight: Tensor) -> None:
        """Say along which dimension of a weight its output units lie."""
        self._dim.setdefault(name, (dim, tuple(weight.shape), weight.device))

    def add(self, name: str, values: Tensor, axis: int, rows: slice) -> None:
        """Add a batch of outputs of some of a weight's units, which lie along ``axis``."""
        units, along = _rows(values, axis)
        count = units.shape[0] * units.shape[2:].numel()
        before = self._of(name, "n")[rows].clone()
        self._of(name, "n")[rows] += count
        if "active_fraction" in self._needs:
            # As floating-point numbers: sums of truth values are several times slower.
            active = torch.gt(units, 0, out=torch.empty_like(units))
            self._of(name, "active")[rows] += _over_examples(active.sum(dim=along), along)
        if "output_mean" in self._needs:
            norm = torch.linalg.vector_norm(units, ord=1, dim=along)
            self._of(name, "absolute value")[rows] += _over_examples(norm, along)
        if "output_variance" in self._needs:
            self._add_variance(name, units, along, count, before, rows)

    def _add_variance(self, name: str, units: Tensor, along: int, count: int, before: Tensor, rows: slice) -> None:
        """Join two sets' sums of squared deviations (Chan et al., 1979), as sums of squares over all batches would cancel."""
        mean, spread = _mean_and_deviation(units, along, count)
        self._join_variance(name, mean, spread, count, before, rows)

    def _join_variance(
        self, name: str, mean: Tensor, spread: Tensor, count: int | Tensor, before: Tensor, rows: slice
    ) -> None:
        old = self._of(name, "mean")[rows]
        total = (before + count).clamp_min(1)
        shift = mean - old
        self._of(name, "deviation")[rows] += spread + shift.square() * before * count / total
        self._of(name, "mean")[rows] += shift * count / total

    def sums(self) -> Sums:
        """Return all that was added up."""
        places = {name: torch.tensor((dim, *shape)) for name, (dim, shape, _) in self._dim.items()}
        found = named("place", places)
        for (name, what), total in self._sums.items():
            found[f"{what}/{name}"] = total
        return found

    def join(self, sums: Sums) -> None:
        """Add what another has added up; its tensors are taken over."""
        found = {what: under(what, sums) for what in ("n", "active", "absolute value", "mean", "deviation")}
        for name, place in under("place", sums).items():
            dim, *shape = place.tolist()
            self._dim.setdefault(name, (dim, tuple(shape), place.device))
            mine = {what: totals[name] for what, totals in found.items() if name in totals}
            if (name, "n") not in self._sums:
                self._sums.update({(name, what): total for what, total in mine.items()})
            elif mine:
                self._join(name, mine)

    def _join(self, name: str, sums: Sums) -> None:
        before = self._of(name, "n").clone()
        for what in ("n", "active", "absolute value"):
            if what in sums:
                self._of(name, what).add_(sums[what])
        if "deviation" in sums:
            self._join_variance(name, sums["mean"], sums["deviation"], sums["n"], before, slice(None))

    def results(self) -> dict[Need, dict[str, Tensor]]:
        """Return each statistic by weight, so that it broadcasts against the weight."""
        words: dict[Need, str] = {
            "active_fraction": "active",
            "output_mean": "absolute value",
            "output_variance": "deviation",
        }
        found: dict[Need, dict[str, Tensor]] = {need: {} for need in self._needs}
        for need in self._needs:
            for name, (dim, shape, _) in self._dim.items():
                values = self._of(name, words[need]) / self._of(name, "n").clamp_min(1)
                found[need][name] = values.view([n if d == dim else 1 for d, n in enumerate(shape)])
        return found

    def _of(self, name: str, what: str) -> Tensor:
        dim, shape, device = self._dim[name]
        key = (name, what)
        if key not in self._sums:
            self._sums[key] = torch.zeros(shape[dim], dtype=torch.float64, device=device)
        return self._sums[key]


def _rows(values: Tensor, axis: int) -> tuple[Tensor, int]:
    """Return ``(rows, features)`` or ``(examples, features, positions)``, and along which dimension to sum first.

    Sums over the innermost dimension, or over whole rows, are the fast ones.
    """
    values = values.detach().to(_fine(values))
    if axis == values.dim() - 1:
        return values.reshape(-1, values.shape[-1]), 0
    before, after = values.shape[:axis].numel(), values.shape[axis + 1 :].numel()
    return values.reshape(before, values.shape[axis], after), 2


def _over_examples(partial: Tensor, along: int) -> Tensor:
    """Return sums per feature in double precision."""
    return partial.double() if along == 0 else partial.double().sum(dim=0)


def _sum_of_squares(units: Tensor, along: int) -> Tensor:
    return _over_examples(torch.linalg.vector_norm(units, dim=along).double().square(), along)


def _mean_and_deviation(units: Tensor, along: int, count: int) -> tuple[Tensor, Tensor]:
    """Return each feature's mean and sum of squared deviations: from two sums, where rounding allows that, else the slow way."""
    mean = _over_examples(units.sum(dim=along), along) / count
    deviation = _sum_of_squares(units, along) - count * mean.square()
    if bool((count * mean.square() <= CANCELS * deviation).all()):
        return mean, deviation
    others = [d for d in range(units.dim()) if d != 1]
    variance, exact = torch.var_mean(units, dim=others, correction=0)
    return exact.double(), variance.double() * count


def _same(one: Tensor, other: Tensor) -> bool:
    """Two views of one memory; the first is held, so that its memory isn't another's by now."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _fine(tensor: Tensor) -> torch.dtype:
    """At least single precision."""
    return torch.promote_types(tensor.dtype, torch.float32)
