"""What is each training example worth, by what was recorded of a training?

A criterion is a formula from recorded evidence to one saliency per example; higher means *keep*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from prunus.core.code.registry import Registry

__all__ = ["ExampleCriterion", "example_criteria", "example_criterion"]


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


def example_criterion(
    name: str, *, needs: tuple[str, ...], reference: str = ""
) -> Callable[..., Callable[..., Tensor]]:
    """Register a function of evidence; the first line of its docstring says in the catalogue what it returns.

    Evidence is what :class:`ExampleRecorder` records, ``embedding`` ``(n, features)``, ``label`` ``(n,)``, and ``noise`` ``(n,)``.
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        example_criteria.add(name, ExampleCriterion(name, needs, function, summary, reference))
        return function

    return register


@example_criterion("el2n", needs=("el2n",), reference="Paul et al., NeurIPS 2021, arXiv:2107.07075")
def el2n(error: Tensor) -> Tensor:
    """Return the mean norm of the error vector: easy examples, which are predicted well early on, go first.

    Wrong labels score highest here: where labels are noisy, clean first (``aum``, or relabelling).
    """
    return error


@example_criterion("aum", needs=("aum",), reference="Pleiss et al., NeurIPS 2020, arXiv:2001.10528")
def aum(margin: Tensor) -> Tensor:
    """Return the mean margin of the given label over all others: examples that contradict the model go first."""
    return margin


@example_criterion("loss", needs=("loss",))
def loss(loss: Tensor) -> Tensor:
    """Return the mean loss of each example, of whatever task: easy examples go first, wrong labels stay.

    The one criterion, beside its deviation and chance, that needs neither classes nor values.
    """
    return loss


@example_criterion("loss_deviation", needs=("loss_deviation",))
def loss_deviation(deviation: Tensor) -> Tensor:
    """Return how much an example's loss moves from epoch to epoch: what is learnt at once, or never, goes first."""
    return deviation


@example_criterion("forgetting", needs=("forgotten",), reference="Toneva et al., ICLR 2019, arXiv:1812.05159")
def forgetting(forgotten: Tensor) -> Tensor:
    """Return how often an example was right and then wrong: what is learnt for good goes first, what is never learnt stays."""
    return forgotten


@example_criterion("confidence", needs=("confidence",), reference="Swayamdipta et al., EMNLP 2020, arXiv:2009.10795")
def confidence(confidence: Tensor) -> Tensor:
    """Return the mean probability of the given label: examples that contradict the model go first."""
    return confidence


@example_criterion(
    "variability", needs=("confidence_deviation",), reference="Swayamdipta et al., EMNLP 2020, arXiv:2009.10795"
)
def variability(deviation: Tensor) -> Tensor:
    """Return how much the probability of the given label moves from epoch to epoch: what is sure, right or wrong, goes first."""
    return deviation


@example_criterion("entropy", needs=("entropy",), reference="Coleman et al., ICLR 2020, arXiv:1906.11829")
def entropy(entropy: Tensor) -> Tensor:
    """Return the mean entropy of the probabilities: what the model is sure of goes first, whatever its label."""
    return entropy


@example_criterion("margin", needs=("gap",), reference="Coleman et al., ICLR 2020, arXiv:1906.11829")
def margin(gap: Tensor) -> Tensor:
    """Return one minus the mean gap between the two highest probabilities: what the model isn't torn about goes first."""
    return 1 - gap


@example_criterion("random", needs=("noise",))
def random_example(noise: Tensor) -> Tensor:
    """Return chance: the baseline that every other criterion has to beat."""
    return noise
