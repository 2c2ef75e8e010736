"""Which examples does each selection keep, and what does cleaning drop before it?

A selection returns which examples stay, at most the budget: what was found to be wrong or a duplicate isn't taken back to fill it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from example_data import RealSet
from example_training import recorded, unseen_once, unseen_twice
from torch import Tensor

from prunus.core.types import Bools, Ints
from prunus.data import ArraySource, Examples
from prunus.score import WrongLabels, example_strata, farthest_first, near_duplicates, wrong_labels
from prunus.select import budget, select
from prunus.tasks import Classification


class Judged:
    """The training examples of one split and noise, with what is known of them; what costs something is found when asked for."""

    def __init__(self, data: RealSet, rows: Tensor, labels: Tensor, seed: int) -> None:
        self.data, self.rows, self.labels, self.seed = data, rows, labels, seed
        self.inputs, self.flat = data.inputs[rows], data.flat[rows]
        self._orders: dict[bytes, Ints] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def examples(self) -> Examples:
        """The examples as the strata see them: labels and class names."""
        names = self.data.class_names
        source = ArraySource(
            self.data.name,
            tuple(map(str, range(len(self)))),
            torch.zeros(len(self), 1),
            self.labels,
            Classification(class_names=names),
            names,
        )
        return Examples(source, torch.arange(len(self)))

    @cached_property
    def evidence(self) -> dict[str, Tensor]:
        """What one training said."""
        return recorded(self.data, self.inputs, self.labels, self.seed)

    @cached_property
    def unseen_once(self) -> Tensor:
        """What models say that learnt from all other labels, wrong ones too."""
        return unseen_once(self.data, self.inputs, self.labels, self.seed)

    @cached_property
    def unseen(self) -> Tensor:
        """What models say that didn't learn from what such models call wrong either."""
        return unseen_twice(self.data, self.inputs, self.labels, self.seed, self.unseen_once)

    @cached_property
    def wrong_once(self) -> WrongLabels:
        """How likely each label is to be wrong, by the former."""
        return self._wrong(self.unseen_once)

    @cached_property
    def wrong(self) -> WrongLabels:
        """The same by the latter."""
        return self._wrong(self.unseen)

    def _wrong(self, unseen: Tensor) -> WrongLabels:
        return wrong_labels(unseen.double().numpy(), self.labels.numpy(), seed=self.seed)

    @cached_property
    def called_wrong(self) -> Bools:
        """Labels that are more likely wrong than right."""
        return np.asarray(self.wrong.chance > 0.5)

    @cached_property
    def low_margin(self) -> Bools:
        """As many labels as are estimated to be wrong: those with the lowest margins over a training."""
        found = np.zeros(len(self), np.bool_)
        order = np.argsort(self.evidence["aum"].numpy(), kind="stable")
        found[order[: round(self.wrong.noise * len(self))]] = True
        return found

    def best_other(self) -> Tensor:
        """The class that is likeliest instead of the given one."""
        return self.unseen.scatter(1, self.labels[:, None], -1.0).argmax(dim=1)

    @cached_property
    def cleaned(self) -> Bools:
        """Which examples are left without wrong labels and near-duplicates of one label."""
        return self._without_duplicates(~self.called_wrong, self.labels)

    @cached_property
    def of_margin(self) -> Bools:
        """The same without low margins instead of labels that are likely wrong."""
        return self._without_duplicates(~self.low_margin, self.labels)

    @cached_property
    def relabelled(self) -> tuple[Bools, Tensor]:
        """What is left where wrong labels are replaced instead, and the labels."""
        labels = torch.where(torch.from_numpy(self.called_wrong), self.best_other(), self.labels)
        return self._without_duplicates(np.ones(len(self), np.bool_), labels), labels

    def _without_duplicates(self, left: Bools, labels: Tensor) -> Bools:
        rows = np.flatnonzero(left)
        found = near_duplicates(self.flat[torch.from_numpy(rows)], cosine=0.99, seed=self.seed)
        own = labels[torch.from_numpy(rows)].numpy()
        stays = found.kept | (own != own[found.keeper])
        left = left.copy()
        left[rows[~stays]] = False
        return left

    def covering(self, left: Bools, keep: float) -> Bools:
        """Return what greedy k-centre picks of what is left."""
        rows = np.flatnonzero(left)
        picks, key = min(len(rows), budget(len(self), keep)), left.tobytes()
        if len(self._orders.get(key, ())) < picks:
            self._orders[key] = rows[farthest_first(self.evidence["embedding"][torch.from_numpy(rows)], picks).order]
        found = np.zeros(len(self), np.bool_)
        found[self._orders[key][:picks]] = True
        return found


Selection = Callable[[Judged, float], Bools]


def _random(judged: Judged, keep: float) -> Bools:
    return _by("random", {}, judged, keep)


def _everything(judged: Judged, keep: float) -> Bools:
    return np.ones(len(judged), np.bool_)


def _scored(criterion: str) -> Selection:
    """Return the selection of the highest scores as they were published: of all classes together, and none is sure of a place."""

    def choose(judged: Judged, keep: float) -> Bools:
        return _by(criterion, judged.evidence, judged, keep)

    return choose


def _by(criterion: str, evidence: dict[str, Tensor], judged: Judged, keep: float, left: Bools | None = None) -> Bools:
    """Return the best by a criterion; of what is ``left``, in class strata with floors, if it is told."""
    n_left = len(judged) if left is None else int(left.sum())
    n = budget(len(judged), keep)
    if left is not None and n >= n_left:
        return left
    strata = example_strata(
        criterion,
        evidence,
        judged.examples,
        class_floor=0.0 if left is None else 1.0,
        keep_fraction=n / n_left,
        judged=left,
        seed=judged.seed,
    )
    found = np.zeros(len(judged), np.bool_)
    for stratum, kept in zip(strata, select(strata, keep_fraction=n / n_left, allocation="global"), strict=True):
        found[stratum.units[kept]] = True
    return found


def _k_centre(judged: Judged, keep: float) -> Bools:
    return judged.covering(np.ones(len(judged), np.bool_), keep)


def _clean_random(judged: Judged, keep: float) -> Bools:
    return _by("random", {}, judged, keep, judged.cleaned)


def _margin_random(judged: Judged, keep: float) -> Bools:
    return _by("random", {}, judged, keep, judged.of_margin)


def _clean_k_centre(judged: Judged, keep: float) -> Bools:
    return judged.covering(judged.cleaned, keep)


def _clean_ccs(judged: Judged, keep: float) -> Bools:
    return _by("coverage_centric", judged.evidence, judged, keep, judged.cleaned)


def _relabel_random(judged: Judged, keep: float) -> Bools:
    return _by("random", {}, judged, keep, judged.relabelled[0])


SELECTIONS: dict[str, Selection] = {
    "full": _everything,
    "full_short": _everything,
    "random": _random,
    "clean_random": _clean_random,
    "margin_random": _margin_random,
    "relabel_random": _relabel_random,
    "clean_ccs": _clean_ccs,
    "clean_k_centre": _clean_k_centre,
    "ccs": _scored("coverage_centric"),
    "k_centre": _k_centre,
    **{name: _scored(name) for name in ("el2n", "forgetting", "aum", "moderate", "density")},
}
"""By name; ``full`` is trained for all steps, everything else for the budget's."""
