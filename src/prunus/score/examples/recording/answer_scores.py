"""What does one answer of a trained model say of each example, with or without its label?

The formulas are those of :class:`ExampleRecorder` over one epoch, so that the scores of a pass over new data mean what those of a
training do; each costs only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from prunus.core.errors import RecipeError, ShapeError, near

__all__ = ["WITHOUT_LABELS", "WITH_LABELS", "answer_scores", "known_scores"]

WITHOUT_LABELS = ("prediction", "probability", "entropy", "margin")
"""Of classes; of values only ``prediction``."""
WITH_LABELS = ("loss", "confidence", "aum", "el2n")
"""Of classes; of values all but ``confidence``."""


def known_scores(*, exclusive: bool, labelled: bool) -> tuple[str, ...]:
    """Return what can be said of each example, by its names, in the order of the columns."""
    free = WITHOUT_LABELS if exclusive else ("prediction",)
    return (*free, *(name for name in WITH_LABELS if exclusive or name != "confidence")) if labelled else free


def answer_scores(
    outputs: Tensor, targets: Tensor | None, *, exclusive: bool, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return scores of each example by their names, ``(n,)`` each.

    Of classes: ``prediction``, the class number; ``probability`` of it; ``entropy`` of the probabilities, in nats; ``margin``, one
    minus the gap between the two highest; ``loss``, the cross-entropy; ``confidence``, the probability of the label; ``aum``, its
    logit minus the largest other one; ``el2n``, the norm of probabilities minus label. Of values: ``prediction``, ``loss``, the
    squared error, ``el2n``, the error's modulus, and ``aum``, its negative.

    Args:
        outputs: logits ``(n, classes)``, or values ``(n,)`` or ``(n, 1)``.
        targets: class numbers or values ``(n,)``; None where there are no labels.
        exclusive: whether they are classes.
        names: which; None: all that can be said.

    Raises:
        ShapeError: the outputs have another shape.
        RecipeError: a score that there isn't, or that needs labels.

    >>> found = answer_scores(Tensor([[0, 0]]), Tensor([1]).long(), exclusive=True, names=("confidence", "aum"))
    >>> {name: value.tolist() for name, value in found.items()}
    {'confidence': [0.5], 'aum': [0.0]}
    """
    known = known_scores(exclusive=exclusive, labelled=targets is not None)
    for name in names or ():
        if name not in known:
            every = known_scores(exclusive=exclusive, labelled=True)
            hint = "it needs labels: say which column holds them" if name in every else near(name, known)
            raise RecipeError(f"no score {name!r} of {'classes' if exclusive else 'values'}: {hint}")
    asked = known if names is None else tuple(name for name in known if name in names)
    if exclusive:
        return _of_classes(outputs, targets, asked)
    if outputs.numel() != len(outputs):
        raise ShapeError(f"scores of values need one output per example, (n,) or (n, 1): got {tuple(outputs.shape)}")
    values = outputs.reshape(-1)
    found = {"prediction": values}
    if targets is not None:
        error = (values - targets.to(values.dtype)).abs()
        found |= {"loss": error.square(), "aum": -error, "el2n": error}
    return {name: found[name] for name in asked}


def _of_classes(outputs: Tensor, targets: Tensor | None, asked: tuple[str, ...]) -> dict[str, Tensor]:
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ShapeError(f"scores of classes need one logit per class, (n, classes): got {tuple(outputs.shape)}")
    needs, found = set(asked), {}
    best = outputs.amax(dim=1)
    if needs & {"prediction", "margin"}:
        found["prediction"] = outputs.argmax(dim=1)
    label = None if targets is None else targets[:, None]
    if label is not None and "aum" in needs:
        found["aum"] = outputs.gather(1, label)[:, 0] - outputs.scatter(1, label, float("-inf")).amax(dim=1)
    if needs - {"prediction", "aum"}:
        # Written out, since torch's softmax is slow over few classes, and lays columns that lie together out as rows first.
        below = outputs - best[:, None]
        odds = below.exp()
        total = odds.sum(dim=1)
        if "probability" in needs:
            found["probability"] = 1 / total
        if "entropy" in needs:
            found["entropy"] = total.log() - (odds * below).sum(dim=1) / total
        if "margin" in needs:
            found["margin"] = 1 - (1 - odds.scatter(1, found["prediction"][:, None], 0.0).amax(dim=1)) / total
        if label is not None:
            found["loss"] = total.log() - below.gather(1, label)[:, 0]
            found["confidence"] = odds.gather(1, label)[:, 0] / total
            if "el2n" in needs:
                rest = odds.scatter(1, label, 0.0)
                # What the label's class lacks is what the others have: one minus its probability would lose digits.
                found["el2n"] = (rest.square().sum(dim=1) + rest.sum(dim=1).square()).sqrt() / total
    return {name: found[name] for name in asked}
