"""What do the models of a bundle tell of their training examples: by their losses, and beside models that didn't see them?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe import Recipe
from prunus.core.runtime import derive_seed, generator
from prunus.core.types import Bools, Floats
from prunus.data import Examples
from prunus.evaluate.privacy import likelihood_ratio, losses_of, membership, sureness
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.parts import Parts
from prunus.pipeline.jobs.workspace import Workspace
from prunus.pipeline.safety.shared_units import Arrays, Units
from prunus.pipeline.safety.subjects import Subjects
from prunus.pipeline.stages.model_stage import fit

__all__ = ["privacy_facts"]

Progress = Callable[[str, int, int], None]


def privacy_facts(
    subjects: Subjects,
    attacks: tuple[str, ...],
    *,
    recipe: Recipe | None,
    n_shadows: int,
    confidence: float,
    bootstrap: int,
    seed: int,
    workspace: Workspace,
    parts: Parts,
    opened: Callable[[], AbstractContextManager[Job]],
    units: Callable[..., Units],
    tell: Progress,
) -> dict[str, Any]:
    """Return how well the training examples are told from the test examples.

    Args:
        attacks: ``loss``, and ``lira``, which trains ``n_shadows`` models as ``recipe`` says the dense one is.
        parts: who trains them; each is kept in ``workspace``.
        opened: opens the run of ``recipe``.
        units: who has models look at examples, for a suite; it is told which ones.

    Raises:
        RecipeError: what an attack needs isn't there.
    """
    if "train" not in subjects.parts or subjects.measured != "test":
        raise RecipeError(
            "--privacy compares examples that were trained on with others: got data that aren't split; leave --source out, or "
            "give your recipe (--recipe), whose split says which are which"
        )
    members, outsiders = subjects.parts["train"], subjects.examples
    if min(len(members), len(outsiders)) < 2:
        raise DataError(f"--privacy needs members and outsiders: got {len(members)} and {len(outsiders)} examples")
    settings: dict[str, Any] = {"confidence": confidence, "bootstrap": bootstrap, "seed": seed}
    told: dict[str, dict[str, tuple[Floats, Floats]]] = {}
    notes: list[str] = []
    if "loss" in attacks:
        asked = [(name, side) for name in subjects.models for side in ("members", "outsiders")]
        sides = {"members": members, "outsiders": outsiders}

        def loss(place: int, progress: Callable[[int, int], None]) -> Arrays:
            name, side = asked[place]
            found = losses_of(subjects.models[name], sides[side], subjects.task)
            progress(1, 1)
            return {"loss": found}

        share = units("membership by loss", members, outsiders)
        losses = [-one["loss"] for one in share([f"{name} on {side}" for name, side in asked], loss)]
        told["loss"] = {name: (losses[2 * place], losses[2 * place + 1]) for place, name in enumerate(subjects.models)}
    if "lira" in attacks:
        if recipe is None:
            raise RecipeError("--privacy=lira trains shadow models: give the recipe of the run (--recipe RECIPE)")
        told["lira"] = _ratios(subjects, recipe, n_shadows, seed, workspace, parts, opened, tell)
        if "dense" in subjects.models:
            notes.append(
                "shadow models are dense: for the pruned model the attack is as strong as whoever doesn't prune theirs"
            )
    # A worker that trains a shadow model never comes here.
    rows = [row for attack, found in told.items() for row in membership(attack, *_sides(found), **settings)]
    return {
        "n_members": len(members),
        "n_outsiders": len(outsiders),
        "n_shadows": n_shadows if "lira" in attacks else 0,
        "confidence": confidence,
        "rows": [row.to_dict() for row in rows],
        "notes": notes,
    }


def _sides(found: dict[str, tuple[Floats, Floats]]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    return {name: pair[0] for name, pair in found.items()}, {name: pair[1] for name, pair in found.items()}


def _ratios(
    subjects: Subjects,
    recipe: Recipe,
    n_shadows: int,
    seed: int,
    workspace: Workspace,
    parts: Parts,
    opened: Callable[[], AbstractContextManager[Job]],
    tell: Progress,
) -> dict[str, tuple[Floats, Floats]]:
    """Return likelihood ratios of members and outsiders, by shadow models that were trained on a random half of both each."""
    members, outsiders = subjects.parts["train"], subjects.examples
    n_members, n = len(members), len(members) + len(outsiders)
    saw = _halves(n_shadows, n, seed)
    with opened() as job:
        pool, name = _pool(job, members, outsiders), _name(subjects, recipe, seed)

        def shadow(number: int) -> Floats:
            def train() -> dict[str, torch.Tensor]:
                values = _trained(job, pool, saw[number], derive_seed(seed, "shadow", number) % 2**31)
                return {"sureness": torch.from_numpy(values)}

            kept = workspace.kept(f"{name} shadow {number} of {n_shadows}", train)["sureness"].numpy()
            tell("shadow models", number + 1, n_shadows)
            return kept

        names = [f"shadow model {number + 1}" for number in range(n_shadows)]
        shadows = np.stack(parts.each(workspace, "shadow models", names, shadow))
    found = {}
    for name, model in subjects.models.items():
        sides = [sureness(model, part, subjects.task) for part in (members, outsiders)]
        if sides[0] is None or sides[1] is None:
            raise RecipeError(f"--privacy=lira needs probabilities, and {subjects.task.name} gives none: take loss")
        ratio = likelihood_ratio(np.concatenate([sides[0], sides[1]]), shadows, saw)
        found[name] = (ratio[:n_members], ratio[n_members:])
    return found


def _name(subjects: Subjects, recipe: Recipe, seed: int) -> str:
    """Return a name under which shadow models of the same recipe, data and seed are kept."""
    said = recipe.model_copy(update={"output": ""}).model_dump_json()
    return f"safety {derive_seed(seed, said, *subjects.parts['train'].ids, *subjects.examples.ids):x}"


def _halves(n_shadows: int, n: int, seed: int) -> Bools:
    """Return which shadow model is trained on which example: half of the models on each, so that each is new to as many."""
    if n_shadows < 2:
        raise RecipeError(f"--shadows must be at least 2, got {n_shadows}")
    draw = torch.rand(n_shadows, n, generator=generator(seed, "shadow halves"))
    found: Bools = (draw.argsort(dim=0).argsort(dim=0) < n_shadows // 2).numpy()
    return found


def _pool(job: Job, members: Examples, outsiders: Examples) -> Examples:
    """Return all examples as the job's models take them."""
    parts = job.data.train, job.data.test
    if parts[0].source is not parts[1].source:
        raise RecipeError(
            "--privacy=lira draws shadow models' examples from one source: got a test set of its own; take loss"
        )
    if [*parts[0].ids, *parts[1].ids] != [*members.ids, *outsiders.ids]:
        raise RecipeError(
            "--privacy=lira: the recipe's examples aren't the bundle's: give the recipe that the run was made by"
        )
    rows = torch.cat([part.rows for part in parts])
    known = [part.known_targets for part in parts]
    targets = None if known[0] is None or known[1] is None else torch.cat([known[0], known[1]])
    first = parts[0]
    return Examples(
        first.source,
        rows,
        targets=targets,
        task=first.task,
        scaler=first.scaler,
        target_scaler=first.target_scaler,
        device=first.device,
    )


def _trained(job: Job, pool: Examples, saw: Bools, seed: int) -> Floats:
    model = job.build(seed).to(job.device)
    fit(job, model, pool.select(saw), job.recipe.train, seed=seed, stage="shadow model")
    found = sureness(model, pool, pool.task)
    if found is None:
        raise RecipeError(f"--privacy=lira needs probabilities, and {pool.task.name} gives none: take loss")
    return found
