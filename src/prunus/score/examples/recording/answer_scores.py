"""What does one answer of a trained model say of each example, with or without its label?

The formulas are those of :class:`ExampleRecorder` over one epoch, so that the scores of a pass over new data mean what those of a
training do; each costs only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from prunus.core.errors import RecipeError, ShapeError, near

__all__ = ["WITHOUT_LABELS", "WITH_LABELS", "answer_scores", "known_scores"]

WITHOUT_LABELS = ("prediction", "probability", "entropy", "margin")
"""Of classes; of values only ``prediction``."""
WITH_LABELS = ("loss", "confidence", "aum", "el2n")
"""Of classes; of values all but ``confidence``."""


_CACHED_NUMBERS = 1 << 17
"""So many outputs are looked at at once: what is made of them stays in the processor's cache."""


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
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ShapeError(f"scores of classes need one logit per class, (n, classes): got {tuple(outputs.shape)}")
        rows = max(_CACHED_NUMBERS // outputs.shape[1], 1)
        pieces = [slice(start, start + rows) for start in range(0, max(len(outputs), 1), rows)]
        parts = [_of_classes(outputs[at], None if targets is None else targets[at], asked) for at in pieces]
        return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in asked}
    if outputs.numel() != len(outputs):
        raise ShapeError(f"scores of values need one output per example, (n,) or (n, 1): got {tuple(outputs.shape)}")
    values = outputs.reshape(-1)
    found = {"prediction": values}
    if targets is not None:
        error = (values - targets.to(values.dtype)).abs()
        found |= {"loss": error.square(), "aum": -error, "el2n": error}
    return {name: found[name] for name in asked}


def _of_classes(outputs: Tensor, targets: Tensor | None, asked: tuple[str, ...]) -> dict[str, Tensor]:
    # Written out, since torch's softmax is slow over few classes, and lays columns that lie together out as rows first; and by
    # masks, since argmax and scatter go through numbers one at a time.
    needs, found = set(asked), {}
    n_classes = outputs.shape[1]
    numbers = torch.arange(n_classes, dtype=torch.int32, device=outputs.device)
    best = outputs.amax(dim=1)
    label = None if targets is None else targets[:, None]
    second: Tensor | None = None
    if needs & {"prediction", "margin"}:
        # Of several highest, the first: counted down from the number of classes, it is the largest.
        countdown = (outputs == best[:, None]) * (n_classes - numbers)
        first = countdown.amax(dim=1)
        found["prediction"] = (n_classes - first).long()
        if "margin" in needs:
            second = outputs.masked_fill(countdown == first[:, None], float("-inf")).amax(dim=1)
    if label is not None and "aum" in needs:
        if second is None:
            other = outputs.scatter(1, label, float("-inf")).amax(dim=1)
        else:
            other = torch.where(found["prediction"] == label[:, 0], second, best)
        found["aum"] = outputs.gather(1, label)[:, 0] - other
    if needs - {"prediction", "aum"}:
        below = outputs - best[:, None]
        odds = below.exp()
        total = odds.sum(dim=1)
        log_total = total.log() if needs & {"entropy", "loss"} else total
        if "probability" in needs:
            found["probability"] = 1 / total
        if "entropy" in needs:
            found["entropy"] = log_total - (odds * below).sum(dim=1) / total
        if second is not None:
            found["margin"] = 1 - (1 - (second - best).exp()) / total
        if label is not None:
            given_below = below.gather(1, label)[:, 0]
            found["loss"] = log_total - given_below
            if "confidence" in needs:
                found["confidence"] = given_below.exp() / total
            if "el2n" in needs:
                # What the label's class lacks is what the others have: one minus its probability would lose digits.
                rest = odds.masked_fill_(numbers == label.to(torch.int32), 0.0)
                found["el2n"] = (rest.square().sum(dim=1) + rest.sum(dim=1).square()).sqrt() / total
    return {name: found[name] for name in asked}
