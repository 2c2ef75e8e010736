"""How does a finished search leave as several sizes of one plan?

The settings of one point of its frontier and the amounts of all that were confirmed: each size is cut out of the one before, so
that a deployment picks its size without a new search. What the sizes have is measured once more, on the search's test examples.
Since these told which settings are recommended, the intervals hold for all sizes of all settings that were confirmed (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError, RecipeError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import folder_lock, write_json
from prunus.core.recipes.recipe import Recipe, Schedule
from prunus.core.recipes.recipe_file import make_recipe, override
from prunus.core.recipes.trust import Permission, check_reach
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.run_folder import RECIPE, is_of
from prunus.pipeline.offered import load_offered
from prunus.pipeline.sizes import FACTS, Chosen, Made, make_sizes, read_sizes
from prunus.search.account.judged_on import check_judged, read_begun
from prunus.search.account.where import Where, check_folder
from prunus.search.confirm import fresh_seeds
from prunus.search.search_facts import judged, read_facts
from prunus.search.shared_dense import take_dense
from prunus.search.space import Space, search_of

__all__ = ["sizes_of_search"]

_AMOUNT = "strategy.keep_fraction"
_DIGITS = 3
"""A size is called by its keep fraction, which a person types."""


def sizes_of_search(
    recipe: Recipe,
    *,
    setting: int | None = None,
    overrides: Sequence[str] = (),
    trust_code: bool = True,
    overwrite: bool = False,
    listener: Listener = silent,
) -> Made:
    """Make nested sizes of the settings that a search recommends, in its folder ``sizes``, and show them on its page.

    Args:
        recipe: whose output folder holds the finished search.
        setting: the number of the trial whose settings the sizes have; default: the recommended one, or the cheapest confirmed.
        overrides: ``key=value`` for the recipe of the sizes, like ``sizes.keep_fractions=[0.8,0.4]`` or ``sizes.weights=own``.
        trust_code: the recipe may name functions to call and files to read: False where it came with the folder.
        overwrite: throw away sizes of other settings; the same ones are read, or gone on with.

    Raises:
        OutputError: no finished search, or sizes of other settings are there.
        RecipeError: no such trial, fewer than two amounts, or settings that no sizes can have.
        PlanError: the recipe names something that isn't allowed.
    """
    where = Where(Path(recipe.output))
    if not where.record.is_file():
        raise OutputError(
            f"{where.folder} holds no finished search: expected {where.record.name}; run prunus search first"
        )
    given = ("output", *(assignment.partition("=")[0].strip() for assignment in overrides))

    def allow(named: Recipe) -> None:
        check_reach(
            named,
            Permission(everything=trust_code, given=given),
            where=str(where.recipe),
            way="give the recipe yourself (prunus search RECIPE --resume --sizes), or trust the folder (--trust-code)",
        )
        load_offered(named)

    allow(recipe)
    space = Space.of(recipe, allow=allow)
    with folder_lock(where.folder):
        check_folder(where, space, resume=True, overwrite=False)
        facts = read_facts(where.record, recipe, space)
        number = _number(facts, setting)
        trial = next(row for row in facts["trials"] if row["number"] == number)
        made = _recipe(recipe, space, facts, trial["values"], overrides, where, listener)
        allow(made)
        about = {**judged(facts), "setting": number, "values": trial["values"]}
        held = where.sizes / RECIPE
        same = held.is_file() and is_of(held, made) and _is_about(where, about)
        if held.is_file() and not (same or overwrite):
            raise OutputError(
                f"{where.sizes} holds sizes of other settings, or judged by another contract or beside other settings: "
                f"prunus sizes {where.folder} --overwrite makes them anew"
            )

        begun = read_begun(where.begun)

        def begin(job: Job, seed: int) -> None:
            if begun is not None:
                check_judged(begun, job, same_data=made.data == recipe.data)
            take_dense(where.shared, job, seed, 1.0)

        chosen = Chosen(about, about["n_settings"], search_of(recipe).contract, begin)
        found = make_sizes(made, chosen=chosen, resume=same, overwrite=not same, listener=listener)
        told = {**facts, "sizes": dict(found.facts)}
        write_json(where.record, told)
        from prunus.report import write_search_page

        write_search_page(told, where.page)
    return found


def _is_about(where: Where, about: Mapping[str, Any]) -> bool:
    """Return whether the sizes that lie there, if they are done, were chosen and judged in just this way."""
    record = where.sizes / FACTS
    return not record.is_file() or read_sizes(record).get("of") == dict(about)


def _number(facts: Mapping[str, Any], setting: int | None) -> int:
    """Return the trial whose settings the sizes have."""
    done = [row["number"] for row in facts["trials"] if row["state"] == "done"]
    if setting is None:
        first = facts["confirmed"][0]["number"] if facts["confirmed"] else facts["frontier"][0]
        return int(first if facts["recommended"] is None else facts["recommended"])
    if setting not in done:
        raise RecipeError(
            f"setting {setting} is no finished trial of this search: expected one of {done}, got {setting}"
        )
    return setting


def _recipe(
    recipe: Recipe,
    space: Space,
    facts: Mapping[str, Any],
    values: Mapping[str, Any],
    overrides: Sequence[str],
    where: Where,
    listener: Listener,
) -> Recipe:
    """Return the recipe of the sizes: the trial's, without its amount and its rounds."""
    tree = space.recipe({key: value for key, value in values.items() if key != _AMOUNT}).model_dump(mode="json")
    if tree["strategy"] is None:
        raise RecipeError("sizes need a strategy, which says what may go: this search has none")
    if tree["strategy"]["schedule"] != Schedule().model_dump(mode="json"):
        tree["strategy"]["schedule"] = Schedule().model_dump(mode="json")
        listener(Event("note", "search", "sizes leave strategy.schedule out: they are cut one after the other already"))
    tree["strategy"] |= {"keep_fraction": None, "cutoff": None}
    metrics = [facts["metric"], *(name for name in tree["evaluation"]["metrics"] if name != facts["metric"])]
    tree["evaluation"]["metrics"] = metrics
    tree |= {"seeds": fresh_seeds(recipe)[:1], "output": str(where.sizes), "sizes": {}}
    shares = _shares(facts)
    if shares:
        tree["sizes"]["keep_fractions"] = shares
    made = override(tree, overrides)
    if len(made["sizes"].get("keep_fractions", ())) < 2:
        raise RecipeError(
            f"the confirmed settings of this search have {len(shares)} amount{'s' if len(shares) != 1 else ''} ({_AMOUNT}), "
            "and sizes need two: say which (-o 'sizes.keep_fractions=[0.75, 0.5]')"
        )
    return make_recipe(made, f"the recipe of sizes of {where.folder}")


def _shares(facts: Mapping[str, Any]) -> list[float]:
    """Return the amounts of the confirmed settings, the largest first."""
    values = {row["number"]: row["values"] for row in facts["trials"]}
    found = {values[row["number"]].get(_AMOUNT) for row in facts["confirmed"]} - {None}
    return sorted({round(float(share), _DIGITS) for share in found}, reverse=True)
