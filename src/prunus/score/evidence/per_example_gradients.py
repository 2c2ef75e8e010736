"""How strongly does each weight move the outputs, example by example?

The diagonals of the Fisher matrices are mean squares of ``J^T v``, the outputs' derivatives pulled back to the weights: with
``v`` the derivative of an example's loss for the empirical one, and the columns of a root of the loss's Hessian for the
Gauss-Newton (the model's own Fisher) matrix. Examples must not be summed before they are squared, so this costs a backward pass
per example and column, some at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.core.calls import arguments, call, described, map_tensors, select_rows
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.runtime import generator
from prunus.data.sources.source import row_chunks
from prunus.score.criteria.criterion import Need
from prunus.score.evidence.checked_loss import checked
from prunus.score.evidence.pieces import Sums, named, under

if TYPE_CHECKING:
    from prunus.data import Batch

    Loss = Callable[[Any, Batch], Tensor]

__all__ = ["PULLBACK_NEEDS", "Pullbacks"]

PULLBACK_NEEDS: frozenset[Need] = frozenset(("curvature", "squared_gradient"))

BUDGET_BYTES = 2**28
"""How much memory the gradients of the examples that go through at once may take: 256 MiB, or those of one."""
EXACT_OUTPUTS = 32
"""With more outputs, as many random combinations of the columns stand for all of them (unbiased)."""
MOST_OUTPUTS = 1024
N_DRAWS = 8


class Pullbacks:
    """Add up squared pullbacks over batches, for the curvature and the squared gradients that ``needs`` names."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, Tensor],
        needs: Collection[Need],
        loss: Loss,
        seed: int,
        first_batch: int = 0,
    ) -> None:
        self._model, self._loss, self._seed = model, loss, seed
        self._parameters = {name: parameter.detach() for name, parameter in parameters.items()}
        self._needs: tuple[Need, ...] = tuple(sorted(PULLBACK_NEEDS & set(needs)))
        self._sums: dict[Need, dict[str, Tensor]] = {
            need: {
                name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
                for name, p in self._parameters.items()
            }
            for need in self._needs
        }
        self._together = True
        self._n_batches = first_batch  # what is drawn for a batch hangs on its number

    def add(self, batch: Batch, outputs: Any) -> None:
        """Add a batch whose ``outputs`` are known."""
        for need in self._needs:
            if isinstance(outputs, Tensor) and len(outputs) == len(batch.index):
                columns = self._columns(need, batch, outputs.detach())
                self._pull(self._sums[need], batch.inputs, columns)
            elif need == "squared_gradient":
                self._square_losses(self._sums[need], batch)
            else:
                raise ModelError(
                    f"curvature needs one tensor of outputs with a row for each example: got {described(outputs)}; use "
                    "fisher_empirical, or a criterion without curvature"
                )
        self._n_batches += 1

    def results(self, n_examples: int) -> dict[Need, dict[str, Tensor]]:
        """Return means over examples, by need and weight."""
        return {need: {name: total / n_examples for name, total in sums.items()} for need, sums in self._sums.items()}

    def sums(self) -> Sums:
        """Return all that was added up."""
        return {name: value for need, sums in self._sums.items() for name, value in named(need, sums).items()}

    def join(self, sums: Sums) -> None:
        """Add what another has added up."""
        for need, totals in self._sums.items():
            for name, value in under(need, sums).items():
                totals[name] += value

    def _columns(self, need: Need, batch: Batch, outputs: Tensor) -> Tensor:
        """Return what is pulled back for each example: ``(examples, columns, *outputs)``."""
        with torch.enable_grad():
            leaf = outputs.requires_grad_(True)
            # The loss is a mean over independent examples, so that this is each example's own derivative.
            (slope,) = torch.autograd.grad(self._loss(leaf, batch) * len(leaf), leaf, create_graph=True)
        if need == "squared_gradient":
            return slope.detach().unsqueeze(1)
        return self._root(_hessians(slope, leaf)).reshape(len(leaf), -1, *leaf.shape[1:])

    def _root(self, hessians: Tensor) -> Tensor:
        """Return ``(examples, columns, outputs)`` whose outer products sum to each ``(outputs, outputs)`` matrix."""
        values, vectors = torch.linalg.eigh(hessians.double())
        root = (vectors * values.clamp_min(0).sqrt().unsqueeze(1)).transpose(1, 2)
        n_outputs = root.shape[1]
        if n_outputs > EXACT_OUTPUTS:
            draw = generator(self._seed, "score", "curvature", self._n_batches)
            signs = torch.randint(0, 2, (len(root), N_DRAWS, n_outputs), generator=draw, dtype=root.dtype) * 2 - 1
            root = signs.to(root.device) @ root / N_DRAWS**0.5
        found: Tensor = root.to(hessians.dtype)
        return found

    def _pull(self, sums: dict[str, Tensor], inputs: Any, columns: Tensor) -> None:
        """Add the squares of ``columns`` pulled back; many examples at once where the model allows it."""
        n_examples, n_columns = columns.shape[:2]
        # No more examples times columns than the batch has examples: activations take what a plain backward pass does.
        at_once = max(1, min(self._fitting(n_columns), n_examples // n_columns))
        if self._together:
            try:
                for rows in row_chunks(torch.arange(n_examples), at_once):
                    # A chunk that fails has added nothing.
                    for name, squares in self._pull_together(select_rows(inputs, rows), columns[rows]).items():
                        sums[name] += squares
                return
            except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError) as error:
                raise_if_out_of_memory(error)
                # An operation without a batching rule (recurrent kernels), or a forward that looks at values.
                if _started(sums):
                    raise
                self._together = False
        for row, v in enumerate(columns):
            self._pull_one(sums, select_rows(inputs, torch.tensor([row])), v)

    def _fitting(self, n: int) -> int:
        """Return how many times ``n`` gradients of all parameters fit into the memory that they may take."""
        return BUDGET_BYTES // (n * sum(parameter.nbytes for parameter in self._parameters.values()))

    def _pull_together(self, inputs: Any, columns: Tensor) -> dict[str, Tensor]:
        def one(x: Any, v: Tensor) -> dict[str, Tensor]:
            given, named = arguments(map_tensors(lambda value: value.unsqueeze(0), x))

            def forward(parameters: dict[str, Tensor]) -> Tensor:
                made: Tensor = functional_call(self._model, parameters, given, named).squeeze(0)
                return made

            pull = vjp(forward, self._parameters)[1]
            (found,) = vmap(pull, chunk_size=max(1, self._fitting(len(columns))))(v)
            return {name: g.square().sum(dim=0) for name, g in found.items()}

        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found: dict[str, Tensor] = vmap(one)(inputs, columns)
        return {name: squares.sum(dim=0) for name, squares in found.items()}

    def _pull_one(self, sums: dict[str, Tensor], x: Any, columns: Tensor) -> None:
        with torch.enable_grad():
            made = call(self._model, x).squeeze(0)
            for v in columns:
                self._add_squares(sums, made, v, retain_graph=True)

    def _square_losses(self, sums: dict[str, Tensor], batch: Batch) -> None:
        """Add the squared gradients of each example's own loss, where outputs are a structure that only the loss can read."""
        for row in range(len(batch.index)):
            one = type(batch)(*(select_rows(field, torch.tensor([row])) for field in batch))
            with torch.enable_grad():
                value = checked(self._loss(call(self._model, one.inputs), one), one)
            self._add_squares(sums, value)

    def _add_squares(
        self, sums: dict[str, Tensor], value: Tensor, column: Tensor | None = None, **options: bool
    ) -> None:
        known = dict(self._model.named_parameters())
        wanted = [known[name] for name in self._parameters]
        found = torch.autograd.grad(value, wanted, column, allow_unused=True, **options)
        for name, gradient in zip(self._parameters, found, strict=True):
            if gradient is not None:
                sums[name] += gradient.square()


def _started(sums: Mapping[str, Tensor]) -> bool:
    """Tell whether something was added."""
    return any(bool(total.any()) for total in sums.values())


def _hessians(slope: Tensor, leaf: Tensor) -> Tensor:
    """Return each example's Hessian of the loss by its outputs, ``(examples, outputs, outputs)``."""
    n_outputs = leaf[0].numel()
    if n_outputs > MOST_OUTPUTS:
        raise ModelError(
            f"curvature needs at most {MOST_OUTPUTS} outputs for each example: got {n_outputs}; use fisher_empirical, or a "
            "criterion without curvature"
        )
    if not slope.requires_grad:  # the loss is linear in the outputs
        return leaf.new_zeros(len(leaf), n_outputs, n_outputs)
    flat = slope.reshape(len(leaf), n_outputs)
    rows: list[Any] = [torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0] for column in flat.unbind(1)]
    return torch.stack([row.reshape(len(leaf), n_outputs) for row in rows], dim=1)
