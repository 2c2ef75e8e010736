"""How many examples does a classifier keep right under attack: PGD, and what finds more than it?

PGD alone overstates robustness, by a few points usually and by all of it where gradients vanish. So it never stands alone:
Auto-PGD with two losses and towards each wrong class, FAB, which looks for the smallest change, and Square, which needs no
gradient, are run on what still stands. An example withstands what nothing of all this breaks. It is AutoAttack's recipe with
fewer steps; whoever knows the defence may find more, so that it stays an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.core.runtime import generator
from prunus.evaluate.robustness.attacks.apgd import apgd, apgd_targeted
from prunus.evaluate.robustness.attacks.fab import fab
from prunus.evaluate.robustness.attacks.pgd import pgd
from prunus.evaluate.robustness.attacks.square import square
from prunus.evaluate.robustness.attacks.square_l2 import square_l2
from prunus.evaluate.robustness.attacks.threat import Scores, Threat, wrong

__all__ = ["ATTACKS", "AttackRow", "Attacked", "Effort", "attacked"]

_BATCH = 128
ATTACKS = {
    "pgd": "PGD",
    "apgd_ce": "Auto-PGD, cross-entropy",
    "apgd_dlr": "Auto-PGD, difference of logits",
    "apgd_targeted": "Auto-PGD, towards each wrong class",
    "fab": "FAB, the smallest change towards each wrong class",
    "square": "Square, without gradients",
}


@dataclass(frozen=True)
class Effort:
    """How long each attack looks: steps, restarts of PGD, classes that are aimed at, queries of Square."""

    pgd_steps: int = 20
    restarts: int = 3
    steps: int = 50
    targets: int = 9
    queries: int = 500


@dataclass(frozen=True)
class AttackRow:
    """One attack: how many examples it broke of those that it was run on, and how many still stood after it."""

    attack: str
    tried: int
    broken: int
    standing: int


@dataclass(frozen=True)
class Attacked:
    """Which examples are ``right`` without attack, under ``pgd`` alone, and ``standing`` under everything, ``(n,)`` each."""

    right: Tensor
    pgd: Tensor
    standing: Tensor
    rows: tuple[AttackRow, ...]


Attack = Callable[[Scores, Tensor, Tensor, Threat, torch.Generator], Tensor]


def _attacks(effort: Effort, norm: str) -> dict[str, Attack]:
    found: dict[str, Attack] = {
        "pgd": lambda model, x, y, threat, draw: pgd(
            model, x, y, threat, steps=effort.pgd_steps, restarts=effort.restarts, draw=draw
        ),
        "apgd_ce": lambda model, x, y, threat, draw: apgd(
            model, x, y, threat, steps=effort.steps, loss="ce", draw=draw
        ),
        "apgd_dlr": lambda model, x, y, threat, draw: apgd(
            model, x, y, threat, steps=effort.steps, loss="dlr", draw=draw
        ),
        "apgd_targeted": lambda model, x, y, threat, draw: apgd_targeted(
            model, x, y, threat, steps=effort.steps, most=effort.targets, draw=draw
        ),
        "fab": lambda model, x, y, threat, draw: fab(model, x, y, threat, steps=effort.steps, most=effort.targets),
    }
    asks = square if norm == "linf" else square_l2
    found["square"] = lambda model, x, y, threat, draw: asks(model, x, y, threat, queries=effort.queries, draw=draw)
    return found


def attacked(
    model: Scores,
    x: Tensor,
    right: Tensor,
    threat: Threat,
    *,
    effort: Effort,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Attacked:
    """Return what a classifier withstands on some examples.

    Args:
        x: in the attacker's coordinates.
        progress: is told how many of how many steps are done.
    """
    attacks = _attacks(effort, threat.norm)
    starts = range(0, len(x), _BATCH)
    with torch.no_grad():
        good = torch.cat([~wrong(model(x[s : s + _BATCH]), right[s : s + _BATCH]) for s in starts])
    standing, after_pgd, rows = good.clone(), good, []
    done, total = 0, len(attacks) * len(starts)
    for name, attack in attacks.items():
        tried = int(standing.sum())
        for number, start in enumerate(starts):
            rows_here = start + standing[start : start + _BATCH].nonzero()[:, 0]
            if len(rows_here):
                draw = generator(seed, "attack", name, threat.norm, number)
                found = attack(model, x[rows_here], right[rows_here], threat, draw)
                with torch.no_grad():
                    standing[rows_here[wrong(model(found), right[rows_here])]] = False
            done += 1
            if progress is not None:
                progress(done, total)
        left = int(standing.sum())
        rows.append(AttackRow(name, tried, tried - left, left))
        if name == "pgd":
            after_pgd = standing.clone()
    return Attacked(good, after_pgd, standing, tuple(rows))
