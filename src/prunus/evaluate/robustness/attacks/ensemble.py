"""How many examples does a classifier keep right under attack: PGD, and what finds more than it?

PGD alone overstates robustness, by a few points usually and by all of it where gradients vanish. So it never stands alone:
Auto-PGD with two losses and towards each wrong class, FAB, which looks for the smallest change, and Square, which needs no
gradient, are run on what still stands. An example withstands what nothing of all this breaks. It is AutoAttack's recipe with
fewer steps; whoever knows the defence may find more, so that it stays an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

__all__ = ["ATTACKS", "AttackRow", "Attacked", "Effort", "attacked", "attacked_part", "joined", "n_parts"]

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


def n_parts(n_examples: int) -> int:
    """Return how many parts the examples fall into, each of which is attacked by itself.

    >>> n_parts(256), n_parts(257)
    (2, 3)
    """
    return -(-n_examples // _BATCH)


def attacked(
    model: Scores,
    x: Tensor,
    right: Tensor,
    threat: Threat,
    *,
    effort: Effort,
    seed: int,
) -> Attacked:
    """Return what a classifier withstands on some examples.

    Args:
        x: in the attacker's coordinates.
    """
    parts = range(n_parts(len(x)))
    return joined([attacked_part(model, x, right, threat, part, effort=effort, seed=seed) for part in parts])


def attacked_part(
    model: Scores,
    x: Tensor,
    right: Tensor,
    threat: Threat,
    part: int,
    *,
    effort: Effort,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Attacked:
    """Return what a classifier withstands on one part of the examples, which hangs on no other.

    Args:
        x: all of them, in the attacker's coordinates.
        progress: is told how many of how many attacks are done.
    """
    here = slice(part * _BATCH, (part + 1) * _BATCH)
    x, right, attacks = x[here], right[here], _attacks(effort, threat.norm)
    with torch.no_grad():
        good = ~wrong(model(x), right)
    standing, after_pgd, rows = good.clone(), good, []
    for number, (name, attack) in enumerate(attacks.items(), start=1):
        still = standing.nonzero()[:, 0]
        if len(still):
            draw = generator(seed, "attack", name, threat.norm, part)
            found = attack(model, x[still], right[still], threat, draw)
            with torch.no_grad():
                standing[still[wrong(model(found), right[still])]] = False
        left = int(standing.sum())
        rows.append(AttackRow(name, len(still), len(still) - left, left))
        if name == "pgd":
            after_pgd = standing.clone()
        if progress is not None:
            progress(number, len(attacks))
    return Attacked(good, after_pgd, standing, tuple(rows))


def joined(parts: Sequence[Attacked]) -> Attacked:
    """Return what all parts of the examples together withstand."""
    rows = tuple(
        AttackRow(
            each[0].attack, sum(r.tried for r in each), sum(r.broken for r in each), sum(r.standing for r in each)
        )
        for each in zip(*(part.rows for part in parts), strict=True)
    )
    right, pgd, standing = (torch.cat([getattr(part, name) for part in parts]) for name in ("right", "pgd", "standing"))
    return Attacked(right, pgd, standing, rows)
