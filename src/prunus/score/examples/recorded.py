"""How much does each training example matter, seen over one short training?

:class:`ExampleRecorder` watches a training and keeps running sums, so its memory grows with the number of examples and not with the
epochs. Example criteria turn what it recorded into one saliency per example; higher means *keep*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.calls import answer
from prunus.core.code.registry import Registry
from prunus.core.errors import RecipeError, RunError, ShapeError
from prunus.core.runtime import generator
from prunus.core.types import Bools, Floats, Stratum

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

__all__ = ["ExampleCriterion", "ExampleRecorder", "aum", "el2n", "example_criteria", "example_strata", "random_example"]


class ExampleRecorder:
    """Record what a model in training says about every example: give it to ``train`` as ``watch``.

    Classification, all as means over the epochs: ``el2n`` is ``|softmax(outputs) - onehot(target)|``, ``aum`` the target's logit
    minus the largest other logit, ``confidence`` the probability of the target, ``probability`` that of every class.
    Regression has no margins: ``el2n`` is the mean ``|output - target|`` and ``aum`` is its negative.

    Args:
        n_examples: how many examples the training has.
        n_outputs: how many classes (1 for regression).
        exclusive: each example has one class (classification); else it has a value (regression).
        el2n_epochs: EL2N looks at the first so many epochs only; None: at all that are recorded.

    References:
        Paul et al., NeurIPS 2021, arXiv:2107.07075 (EL2N; they average over several initialisations, early in training);
        Pleiss et al., NeurIPS 2020, arXiv:2001.10528 (AUM).
    """

    def __init__(
        self,
        n_examples: int,
        n_outputs: int,
        *,
        exclusive: bool = True,
        el2n_epochs: int | None = None,
    ) -> None:
        self.n_examples, self.n_outputs, self.exclusive, self.el2n_epochs = (
            n_examples,
            n_outputs,
            exclusive,
            el2n_epochs,
        )
        # Sums are double, so that the order of the epochs doesn't show in the last digits.
        self._el2n, self._aum, self._confidence = (torch.zeros(n_examples, dtype=torch.float64) for _ in range(3))
        self._probability = torch.zeros(n_examples, n_outputs if exclusive else 0, dtype=torch.float64)
        self._seen = torch.zeros(n_examples, dtype=torch.int64)
        self._seen_early = torch.zeros(n_examples, dtype=torch.int64)
        self._first_epoch: int | None = None

    @torch.no_grad()
    def __call__(self, epoch: int, batch: Batch, outputs: Any) -> None:
        """Add one batch of one epoch.

        Shapes:
            ``outputs``, or the logits in them, is ``(batch, classes)``; for regression ``(batch,)`` or ``(batch, 1)``.
        Raises:
            ShapeError: the outputs have another shape.
        """
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        early = self.el2n_epochs is None or epoch < self._first_epoch + self.el2n_epochs
        index, targets = batch.index.cpu(), batch.targets.detach()
        judge = self._judge_classes if self.exclusive else self._judge_values
        error, margin = judge(index, answer(outputs).detach().double(), targets)
        self._aum.index_add_(0, index, margin.cpu())
        self._seen[index] += 1
        if early:
            self._el2n.index_add_(0, index, error.cpu())
            self._seen_early[index] += 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the means so far, as float32 on the CPU: ``el2n``, ``aum``, and for classes ``confidence`` and ``probability``.

        Shapes:
            ``(n,)`` each, and ``(n, classes)`` for ``probability``.
        Raises:
            RunError: some example was never seen.
        """
        missing = torch.nonzero(self._seen_early == 0).flatten()
        if len(missing):
            raise RunError(
                f"{len(missing)} of {self.n_examples} examples were never seen in training (the first is {int(missing[0])}): "
                "record at least one whole epoch"
            )
        found = {"el2n": self._el2n / self._seen_early, "aum": self._aum / self._seen}
        if self.exclusive:
            found["confidence"] = self._confidence / self._seen
            found["probability"] = self._probability / self._seen[:, None]
        return {name: values.float() for name, values in found.items()}

    def _judge_classes(self, index: Tensor, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if outputs.shape != (len(index), self.n_outputs):
            raise ShapeError(
                f"a classifier's outputs must be ({len(index)}, {self.n_outputs}), one logit per class: got {tuple(outputs.shape)}"
            )
        own = targets[:, None]
        probability = outputs.softmax(dim=1)
        confidence = probability.gather(1, own)
        error = probability.scatter_add(1, own, -torch.ones_like(confidence)).norm(dim=1)
        others = outputs.scatter(1, own, float("-inf")).amax(dim=1)
        margin = outputs.gather(1, own)[:, 0] - others
        self._probability.index_add_(0, index, probability.cpu())
        self._confidence.index_add_(0, index, confidence[:, 0].cpu())
        return error, margin

    def _judge_values(self, index: Tensor, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if outputs.numel() != len(index):
            raise ShapeError(
                f"a regression model's outputs must be ({len(index)},) or ({len(index)}, 1): got {tuple(outputs.shape)}"
            )
        error = (outputs.reshape(-1) - targets.reshape(-1)).abs()
        return error, -error


@dataclass(frozen=True)
class ExampleCriterion:
    """A formula from recorded evidence to one saliency per example, and what it reads."""

    name: str
    needs: tuple[str, ...]
    function: Callable[..., Tensor]
    summary: str
    reference: str = ""

    def __call__(self, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return one saliency per example, ``(n,)``."""
        return self.function(*(evidence[need] for need in self.needs))


example_criteria: Registry[ExampleCriterion] = Registry("example criterion")


def _register(name: str, *, needs: tuple[str, ...], reference: str = "") -> Callable[..., Callable[..., Tensor]]:
    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        example_criteria.add(name, ExampleCriterion(name, needs, function, summary, reference))
        return function

    return register


@_register("el2n", needs=("el2n",), reference="Paul et al., NeurIPS 2021, arXiv:2107.07075")
def el2n(error: Tensor) -> Tensor:
    """Return the mean norm of the error vector: easy examples, which are predicted well early on, go first.

    Wrong labels score highest here: where labels are noisy, clean first (``aum``, or relabelling).
    """
    return error


@_register("aum", needs=("aum",), reference="Pleiss et al., NeurIPS 2020, arXiv:2001.10528")
def aum(margin: Tensor) -> Tensor:
    """Return the mean margin of the given label over all others: examples that contradict the model go first."""
    return margin


@_register("random", needs=("noise",))
def random_example(noise: Tensor) -> Tensor:
    """Return chance: the baseline that every other criterion has to beat."""
    return noise


def example_strata(
    criterion: str,
    evidence: Mapping[str, Tensor],
    examples: Examples,
    *,
    class_floor: float = 0.0,
    keep_fraction: float | None = None,
    cutoff: float | None = None,
    judged: Bools | None = None,
    seed: int = 0,
) -> list[Stratum]:
    """Return one stratum per class (for regression one in all); a unit is the position of an example.

    Args:
        criterion: a name in ``example_criteria``.
        evidence: what :meth:`ExampleRecorder.tensors` gave.
        examples: their targets and class names.
        class_floor: every class keeps at least this share of its fair part, which is the share of all judged examples that stays,
            and one example at least; 0: a class may vanish.
        keep_fraction: that share; with a ``cutoff`` it is the share that reaches it. Without either the fair part is everything.
        cutoff: see ``keep_fraction``.
        judged: which examples may go; the others are in no stratum.
        seed: for ``random``.

    Raises:
        RecipeError: an unknown criterion, or a floor outside [0, 1].
        RunError: the evidence lacks what the criterion reads, or is of another number of examples.
    """
    chosen = example_criteria[criterion]
    if not 0 <= class_floor <= 1:
        raise RecipeError(f"class_floor must be in [0, 1], a share of each class's fair part: got {class_floor!r}")
    n = len(examples)
    given = dict(evidence)
    if "noise" in chosen.needs:
        given["noise"] = torch.rand(n, generator=generator(seed, "score", "examples", criterion))
    for need in chosen.needs:
        if need not in given or len(given[need]) != n:
            got = f"{len(given[need])} of them" if need in given else f"only {', '.join(sorted(given)) or 'nothing'}"
            raise RunError(f"example criterion {criterion!r} needs {need!r} for {n} examples: got {got}")
    saliency: Floats = chosen(given).detach().cpu().double().numpy()
    open_ = np.ones(n, np.bool_) if judged is None else judged
    share = _fair_share(saliency[open_], keep_fraction, cutoff)
    strata = []
    for name, member in _classes(examples.targets.cpu().numpy(), examples.task.exclusive, examples.class_names):
        units = np.flatnonzero(member & open_).astype(np.int64)
        if len(units):
            # Not rounded up: a floor must not ask for more than the fair part itself. But a floor is one example at least:
            # of a small class its share may be none, and a class without an example can't be learnt.
            floor = max(int(class_floor * share * len(units)), int(class_floor > 0))
            strata.append(Stratum(name, saliency[units], units, min_units=floor))
    return strata


def _fair_share(saliency: Floats, keep_fraction: float | None, cutoff: float | None) -> float:
    if keep_fraction is not None:
        return keep_fraction
    if cutoff is None or not len(saliency):
        return 1.0
    return float((saliency >= cutoff).mean())


def _classes(targets: npt.NDArray[np.generic], exclusive: bool, names: Sequence[str]) -> list[tuple[str, Bools]]:
    if not exclusive:
        return [("all", np.ones(len(targets), np.bool_))]
    numbers = np.unique(targets).tolist()
    return [(names[number] if number < len(names) else str(number), targets == number) for number in numbers]
