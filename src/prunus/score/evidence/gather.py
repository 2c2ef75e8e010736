"""What do the weights and the calibration examples say?

Everything that criteria ask for is gathered in one pass: the model stands in evaluation mode, nothing of it changes, and
sums run over examples, so that the batch size doesn't matter; of many examples they are sums of pieces (``pieces``). Each batch
goes forward once, with a look at what enters and leaves the weights, and backward once if a gradient is asked for. Two kinds of
evidence cost more: squares of single examples' gradients take a backward pass per example, and the Hessian-gradient product of
``grasp`` takes a second pass.

Evidence of a weight broadcasts against it: what is known per input feature or per output unit has size 1 along the other
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunus.core.calls import call
from prunus.core.errors import DataError, ModelError, near
from prunus.score.criteria.criterion import INPUT_NEEDS, OUTPUT_NEEDS, Need, criteria
from prunus.score.effective import effective_weights
from prunus.score.evidence.block_cosine import BlockWatch
from prunus.score.evidence.checked_loss import checked
from prunus.score.evidence.per_example_gradients import PULLBACK_NEEDS, Pullbacks
from prunus.score.evidence.pieces import Joins, Piece, Sums, added, batches_in, in_turn, named, pieces_of, under
from prunus.score.evidence.untrained_evidence import hessian_gradient, synaptic_flow
from prunus.score.evidence.weight_hooks import WeightWatch

if TYPE_CHECKING:
    from prunus.data import Batch, Batched

    Loss = Callable[[Any, Batch], Tensor]

__all__ = ["Evidence", "check_calibration", "gather"]

_GRADIENT_NEEDS: frozenset[Need] = frozenset(("gradient", "hessian_gradient"))
_PASS_NEEDS: frozenset[Need] = _GRADIENT_NEEDS | PULLBACK_NEEDS | INPUT_NEEDS | OUTPUT_NEEDS | {"block_cosine"}
_LEAST_EXAMPLES: Mapping[Need, int] = {"output_variance": 2}
DAMPING = 0.01
"""Of the mean diagonal entry, added to the diagonal before outer products are inverted, as SparseGPT does."""


@dataclass(frozen=True)
class Evidence:
    """What was gathered, by parameter name.

    Shapes:
        ``weight[name]`` and ``gradient[name]`` have the parameter's shape, ``more[need][name]`` broadcasts against it. Weights
        are views of the model's, not copies. ``input_gram[name]`` is the mean outer product of a layer's inputs,
        ``(features, features)``, of a convolution ``(groups, features, features)``, where a row of inputs is what the kernel
        covers. ``more["block_cosine"]`` goes by the path of the block.
    """

    weight: Mapping[str, Tensor]
    gradient: Mapping[str, Tensor] = field(default_factory=dict)
    more: Mapping[Need, Mapping[str, Tensor]] = field(default_factory=dict)
    input_gram: Mapping[str, Tensor] = field(default_factory=dict)
    n_examples: int = 0
    input_mean: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, need: Need) -> Mapping[str, Tensor] | None:
        """Return what was gathered of one kind; None where it wasn't asked for."""
        if need == "weight":
            return self.weight
        return self.gradient or None if need == "gradient" else self.more.get(need)

    def replaced(self, need: Need, found: Mapping[str, Tensor]) -> Evidence:
        """Return the same with evidence that comes from elsewhere: the movement of a training."""
        return replace(self, more={**self.more, need: found})


def check_calibration(criterion: str, n_examples: int) -> None:
    """Refuse a calibration set that is too small for a criterion.

    Raises:
        DataError: it says how many examples are needed.
    """
    _check_enough(criteria[criterion].needs, n_examples)


def gather(
    model: nn.Module,
    names: Sequence[str],
    examples: Batched,
    loss: Loss,
    needs: Collection[Need],
    batch_size: int = 256,
    *,
    blocks: Sequence[str] = (),
    damping: float = DAMPING,
    seed: int = 0,
    joins: Joins = in_turn,
) -> Evidence:
    """Return the weights of the parameters ``names``, and of everything else what ``needs`` names.

    Args:
        model: left as it was: mode, gradients and ``requires_grad`` too.
        names: as in ``model.named_parameters()``.
        examples: the calibration set.
        loss: ``(outputs, batch) -> scalar``, a mean over the batch.
        needs: of a criterion, or of several together.
        batch_size: how many examples go through the model at once; the result doesn't depend on it.
        blocks: paths of the modules whose inputs and outputs are compared, for ``block_cosine``.
        damping: for ``inverse_gram``, see :class:`~prunus.score.evidence.statistics.Grams`; 0 inverts what was measured.
        seed: for the random combinations of many outputs that ``curvature`` takes.
        joins: who adds up the pieces of many examples, and what of it is kept; the result doesn't depend on it.

    Memory:
        Beside one batch's activations: a number per weight for each of ``gradient``, ``curvature``, ``squared_gradient`` and
        ``hessian_gradient``; input features squared per layer for ``inverse_gram``; a number per feature or unit for the rest.
        Single examples' gradients take 256 MiB at most, or one example's. Outputs that wait for their nonlinearity are held
        until it comes, at most to the end of the forward pass, as a backward pass would hold them.

    Raises:
        ModelError: an unknown name, or a loss that has no gradient.
        DataError: there are too few examples for what is needed.
        RunError: the loss isn't finite.
    """
    known = dict(model.named_parameters())
    for name in names:
        if name not in known:
            raise ModelError(f"the model has no parameter {name!r}; {near(name, known)}")
    parameters = {name: known[name] for name in names}
    asked, pieces = frozenset(needs), pieces_of(examples, batch_size)
    # What is multiplied by a gradient belongs to it: that of a direction and a length say together what their weight's does.
    slopes = bool(asked & (_GRADIENT_NEEDS | PULLBACK_NEEDS))
    own = {name: parameter.detach() for name, parameter in parameters.items()}
    evidence = Evidence(own if slopes else effective_weights(model, parameters))
    if not parameters and not ("block_cosine" in asked and blocks):
        return evidence
    _check_enough(asked, len(examples))
    with _ready_for_gradients(model, tuple(parameters.values())):
        if "flow" in asked:
            evidence = evidence.replaced("flow", synaptic_flow(model, parameters, examples))
        if asked & _PASS_NEEDS:

            def fresh(piece: Piece) -> _Pass:
                return _Pass(model, parameters, loss, asked, blocks, seed, piece.first // batch_size)

            def seen(piece: Piece) -> _Pass:
                one = fresh(piece)
                for batch in batches_in(examples, piece, batch_size):
                    one.see(batch)
                return one

            def joined(found: Iterable[Sums]) -> Sums:
                return fresh(pieces[0]).join(found).sums()

            if len(pieces) == 1:
                whole = seen(pieces[0])
            else:
                sums = joins("evidence", len(pieces), lambda number: seen(pieces[number]).sums(), joined)
                whole = fresh(pieces[0]).join([sums])
            evidence = whole.evidence(evidence, len(examples), damping)
        if "hessian_gradient" in asked:
            mean = evidence.gradient

            def second(number: int) -> Sums:
                batches = batches_in(examples, pieces[number], batch_size)
                return hessian_gradient(model, parameters, mean, batches, loss)

            sums = second(0) if len(pieces) == 1 else joins("second pass", len(pieces), second, added)
            of_mean = {name: sums[name].to(p.device) / len(examples) for name, p in parameters.items()}
            evidence = evidence.replaced("hessian_gradient", of_mean)
    return evidence


class _Pass:
    """What is added up on the one way through the calibration set."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        loss: Loss,
        needs: frozenset[Need],
        blocks: Sequence[str],
        seed: int,
        first_batch: int,
    ) -> None:
        self.model, self.parameters, self.loss, self.needs = model, parameters, loss, needs
        self.watch = WeightWatch(parameters, needs) if needs & (INPUT_NEEDS | OUTPUT_NEEDS) else None
        self.blocks = BlockWatch(model, blocks) if "block_cosine" in needs else None
        self.pullbacks = None
        if needs & PULLBACK_NEEDS:
            self.pullbacks = Pullbacks(model, parameters, needs, loss, seed, first_batch)
        self.slopes = _Slopes(parameters) if needs & _GRADIENT_NEEDS else None

    def see(self, batch: Batch) -> None:
        """Take one batch forward, and backward if that is needed."""
        with ExitStack() as watches, torch.set_grad_enabled(self.slopes is not None):
            if self.blocks is not None:
                watches.enter_context(self.blocks)
            if self.watch is not None:
                watches.enter_context(self.watch)
            outputs = call(self.model, batch.inputs)
        if self.slopes is not None:
            self.slopes.add(checked(self.loss(outputs, batch), batch), len(batch.index))
        if self.pullbacks is not None:
            if self.slopes is None and isinstance(outputs, Tensor):
                checked(self.loss(outputs.detach().requires_grad_(True), batch), batch)
            self.pullbacks.add(batch, outputs)

    def sums(self) -> Sums:
        """Return all that was added up."""
        return {name: value for what, one in self._counted() for name, value in named(what, one.sums()).items()}

    def join(self, found: Iterable[Sums]) -> _Pass:
        """Add what others have added up, one after the other; their tensors are taken over."""
        for sums in found:
            for what, one in self._counted():
                one.join({name: value.to(self._device(name)) for name, value in under(what, sums).items()})
            del sums  # before the next ones are made
        return self

    def _counted(self) -> list[tuple[str, WeightWatch | BlockWatch | Pullbacks | _Slopes]]:
        held = (("watch", self.watch), ("blocks", self.blocks), ("pullbacks", self.pullbacks), ("slopes", self.slopes))
        return [(what, one) for what, one in held if one is not None]

    def _device(self, name: str) -> torch.device | str:
        """Return where sums of a name are kept: with the parameter whose they are."""
        of = name.rpartition("/")[2]
        return self.parameters[of].device if of in self.parameters else "cpu"

    def evidence(self, weights: Evidence, n_examples: int, damping: float) -> Evidence:
        """Return everything that was added up."""
        more: dict[Need, Mapping[str, Tensor]] = {**weights.more}
        if self.watch is not None:
            more.update(self.watch.results(damping))
        if self.pullbacks is not None:
            more.update(self.pullbacks.results(n_examples))
        if self.blocks is not None:
            more["block_cosine"] = self.blocks.results()
        gradient = {} if self.slopes is None else self.slopes.mean(n_examples)
        grams = {} if self.watch is None else self.watch.grams()
        means = {} if self.watch is None else self.watch.means()
        return Evidence(weights.weight, gradient, more, grams, n_examples, means)


class _Slopes:
    """The gradient of the loss, summed over examples."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.wanted = tuple(parameters.values())
        # At least single precision: many small batches must not be lost in the rounding of one large sum.
        self.totals = {
            name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in parameters.items()
        }
        self.reached = False

    def add(self, value: Tensor, n_examples: int) -> None:
        found = torch.autograd.grad(value, self.wanted, allow_unused=True)
        for total, gradient in zip(self.totals.values(), found, strict=True):
            if gradient is not None:  # a parameter that the outputs don't read doesn't move the loss
                self.reached = True
                total.add_(gradient, alpha=n_examples)

    def sums(self) -> Sums:
        return {**named("sums", self.totals), "reached": torch.tensor(self.reached)}

    def join(self, sums: Sums) -> None:
        self.reached = self.reached or bool(sums["reached"])
        for name, value in under("sums", sums).items():
            self.totals[name] += value

    def mean(self, n_examples: int) -> dict[str, Tensor]:
        if not self.reached:
            first = next(iter(self.totals))
            raise ModelError(
                f"the loss has no gradient with respect to any of {len(self.totals)} parameters ({first!r}, ...): the outputs "
                "must be computed from them by differentiable operations"
            )
        return {name: total.div_(n_examples) for name, total in self.totals.items()}


def _check_enough(needs: Collection[Need], n_examples: int) -> None:
    if n_examples == 0 and (_GRADIENT_NEEDS | PULLBACK_NEEDS) & set(needs):
        raise DataError(
            "gradients need calibration examples: got none; give more (data.split.calibration, n_calibration)"
        )
    for need in sorted(_PASS_NEEDS & set(needs)):
        least = _LEAST_EXAMPLES.get(need, 1)
        if n_examples < least:
            words = need.replace("_", " ")
            raise DataError(
                f"{words} needs at least {least} calibration example{'s' if least > 1 else ''}: got {n_examples}; "
                "give more (data.split.calibration, n_calibration)"
            )


@contextmanager
def _ready_for_gradients(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Put the model in evaluation mode and let gradients flow to ``parameters``; restore everything after it."""
    modes = {module: module.training for module in model.modules()}
    required = [parameter.requires_grad for parameter in parameters]
    # cuDNN computes no gradient of a recurrent layer in evaluation mode; the plain kernels do. Fused kernels of recurrent layers
    # and of attention also hide what enters the weights.
    recurrent = any(isinstance(module, nn.RNNBase) for module in modes)
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(fused and not recurrent)
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
        for module, training in modes.items():
            module.training = training
