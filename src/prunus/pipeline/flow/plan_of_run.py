"""How do the decisions of a run become a plan, and a plan the decisions of a run?"""

from __future__ import annotations

from typing import Any

from prunus.core.errors import PlanError
from prunus.core.files.example_table import ExampleTable
from prunus.core.recipes.recipe import Recipe, Schedule
from prunus.core.types import Plan, Step
from prunus.pipeline.jobs.job import Asked, Decide, Job, SeedResult
from prunus.pipeline.jobs.reuse import dense_fingerprint
from prunus.pipeline.shipping import model_fingerprint
from prunus.pipeline.stages.plan_table import table_of_steps

__all__ = ["as_decided", "check_plan", "decide_from", "plan_of", "table_of"]


def plan_of(job: Job, result: SeedResult) -> Plan:
    """Return the plan that a seed's decisions make."""
    fingerprints = {"data": job.data.fingerprint, "model": model_fingerprint(job.build(result.seed))}
    fingerprints |= dense_fingerprint(job.workspace, result.seed)
    return Plan(result.steps, result.seed, job.recipe.model_dump(mode="json"), fingerprints)


def table_of(job: Job, plan: Plan) -> ExampleTable | None:
    """Return what a plan says of the examples, one row each; None where it says nothing."""
    if not any(step.granularity == "example" for step in plan.steps):
        return None
    return table_of_steps(job.data.train, plan.steps, job.data.fingerprint)


def check_plan(plan: Plan, job: Job) -> None:
    """Refuse a plan for other data or another model before anything is trained."""
    here = {"data": job.data.fingerprint, "model": model_fingerprint(job.build(plan.seed))}
    for what, value in here.items():
        if plan.fingerprints.get(what) != value:
            raise PlanError(
                f"the plan was made for other {what} (fingerprint {plan.fingerprints.get(what, 'missing')[:12]}, got "
                f"{value[:12]}): use the {what} of the plan, or make a new plan"
            )


def as_decided(plan: Plan, recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe says once all is decided: with a target so many rounds, and nothing left to look for."""
    kept: dict[str, Any] = {"joint": None, "tracking": ()}  # what the plan's maker tracks stays there
    if recipe.examples is not None:
        # What a table or a recording said is in the plan's steps.
        kept["examples"] = recipe.examples.model_copy(update={"plan": None, "recording": None})
    if recipe.target is None or recipe.strategy is None:
        return kept
    n_rounds = sum(1 for _ in plan.of("prune"))
    strategy = recipe.strategy.model_copy(
        update={"schedule": Schedule(kind="linear", rounds=max(1, n_rounds)), "allocation": "uniform"}
    )
    return kept | {"strategy": strategy if n_rounds else None, "target": None, "contract": None}


def decide_from(plan: Plan) -> Decide:
    """Answer every question from the plan, in its order."""
    pending = list(plan.steps)

    def decide(asked: Asked, name: str, compute: object) -> tuple[Step, ...]:
        taken: list[Step] = []
        if asked == "prune":
            while pending and pending[0].operation != "prune":
                pending.pop(0)
            if not pending:
                raise PlanError(
                    f"{name}: the plan has no step left for it; it was made with another schedule, make a new plan"
                )
            return (pending.pop(0),)
        while pending and pending[0].granularity == asked:
            taken.append(pending.pop(0))
        return tuple(taken)

    return decide
