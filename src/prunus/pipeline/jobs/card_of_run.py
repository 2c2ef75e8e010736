"""What does a run say of its model on the bundle's card: whatever its record holds that doesn't depend on the clock?"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from prunus.core.files.sealed import tree_sha256
from prunus.core.recipes.card_section import Card
from prunus.pipeline.jobs.job import Job, SeedResult
from prunus.report import RunRecord, int8_outcome
from prunus.ship.card import CardFacts, Change, Comparison, Cost, DataSaid, Measured

__all__ = ["card_of_job", "card_of_run", "run_id"]

_APART = ("timing", "versions", "searches")
"""Of a record: what depends on the clock or the machine; of its recipe, the folder does."""


def run_id(record: RunRecord) -> str:
    """Return the hash of what a run found out: the same seed gives the same, and a record that was changed another."""
    tree = record.model_dump(mode="json", exclude=set(_APART))
    recipe = {key: value for key, value in tree["recipe"].items() if key != "output"}
    fingerprints = {name: value for name, value in tree["fingerprints"].items() if name != "bundle"}
    return tree_sha256({**tree, "recipe": recipe, "fingerprints": fingerprints})


def card_of_job(job: Job) -> CardFacts:
    """Return what is known of a model that nobody measured: what its owner says, and on which data it was trained."""
    return CardFacts(said=job.recipe.card or Card(), data=_data(job, 0))


def card_of_run(job: Job, result: SeedResult, record: RunRecord) -> CardFacts:
    """Return what is known of the model of ``result``, the first seed's, which is the one that is shipped."""
    first = [row for row in record.quality if row.seed == result.seed]
    known = {name: value for name, value in record.fingerprints.items() if name not in ("bundle", "data", "dense")}
    return CardFacts(
        said=job.recipe.card or Card(),
        run_id=run_id(record),
        seeds=tuple(record.seeds),
        confidence=record.confidence,
        metrics=tuple(
            Measured(row.model, row.split, number.name, number.value, number.low, number.high)
            for row in first
            for number in row.metrics
            if number.value is not None
        )
        + _of_int8(record),
        comparisons=tuple(
            Comparison(
                row.metric, row.dense, row.pruned, row.difference.low, row.difference.high, row.verdict, row.n_seeds
            )
            for row in record.comparison
        ),
        contract=_contract(record, result.seed),
        costs={
            name: Cost(row.parameters, row.nonzero_parameters, row.macs, row.size_bytes)
            for name, row in record.cost.items()
        },
        changes=tuple(Change(row.name, row.granularity, row.before, row.after) for row in record.layers),
        data=_data(job, len(job.data.train) - len(result.train)),
        dense_fingerprint=record.fingerprints.get("dense", ""),
        plan_fingerprints=known,
        notes=tuple(record.notes),
        other_files=_other_files(record),
    )


def _other_files(record: RunRecord) -> tuple[str, ...]:
    """Return what files for other runtimes the run left beside the bundle, and why it left none that it was asked for."""
    told = [
        f"{one.file}, for {one.format}" if one.file else f"none for {one.format}: {one.problem}"
        for one in record.exports
    ]
    return (*told, *(() if record.int8 is None else (int8_outcome(record),)))


def _of_int8(record: RunRecord) -> tuple[Measured, ...]:
    """Return how good the int8 file is, where one was left: by its own answers to the test examples."""
    if record.int8 is None or record.int8.problem:
        return ()
    return tuple(
        Measured(record.int8.file, "test", row.quality.name, row.quality.value, row.quality.low, row.quality.high)
        for row in record.int8.rows
        if row.name == "pruned int8" and row.quality.value is not None
    )


def _data(job: Job, n_removed: int) -> DataSaid:
    data = job.data
    return DataSaid(
        source=_without_folder(job.recipe.data.source),
        fingerprint=data.fingerprint,
        n={part: len(getattr(data, part)) for part in ("train", "validation", "calibration", "test")},
        test_set=data.test_set,
        test_seen=job.weights_from_elsewhere,
        n_removed=n_removed,
    )


def _without_folder(source: str) -> str:
    """Return what data are called, without where they lie: a card travels.

    >>> _without_folder("/home/me/flights.parquet"), _without_folder("sklearn:digits"), _without_folder("module:function")
    ('flights.parquet', 'sklearn:digits', 'module:function')
    """
    return PurePath(source).name if "/" in source else source


def _contract(record: RunRecord, seed: int) -> dict[str, Any] | None:
    """Return the test that showed that the model keeps what was promised; None where nothing was."""
    search = next((one for one in record.searches if one.seed == seed), None)
    if search is None or search.contract is None:
        return None
    asked = search.contract.model_dump(mode="json")
    if search.result is None:
        return {**asked, "delivered": "the dense model: no smaller one was shown to keep it"}
    test = search.result.test
    shown = {"kept": False} if test is None else test.model_dump(mode="json", exclude_none=True)
    return {**asked, **shown}
