"""How does a bundle become a file in 8-bit whole numbers that keeps what the run promised?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from prunus.core.errors import DataError, ModelError, PlanError, RecipeError
from prunus.core.recipes.recipe import Data, Recipe
from prunus.core.recipes.shipping.quantize_section import Quantize
from prunus.core.recipes.target_contract import Contract
from prunus.data import Examples
from prunus.pipeline.bundle_examples import in_units, run_examples
from prunus.pipeline.carried import data_of_bundle
from prunus.pipeline.int8.quantise import Int8Examples, promise_of, quantise
from prunus.pipeline.jobs.run_folder import RECORD
from prunus.pipeline.shipping import bundle_folder, dense_folder
from prunus.report import load_record
from prunus.ship import Bundle, load_bundle
from prunus.ship.quantize.int8_formats import int8_runtime

__all__ = ["quantise_bundle"]

_PARTS = ("calibration", "validation", "test")


def quantise_bundle(
    path: Path,
    to: str,
    *,
    out: Path | None = None,
    asked: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    dense: Path | None = None,
    trust_code: bool = False,
    note: Callable[[str], None] | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a bundle's model as a file in int8 if it keeps its promise on test examples; return the facts of the file.

    Args:
        to: one of ``INT8_RUNTIMES``.
        out: default: beside the bundle, with ``.int8`` and the format as its ending.
        asked: keys of ``quantize``, over what the recipe says.
        recipe: whose data calibrate, choose and decide, split as in the run, and whose contract is promised; default: the data that
            the bundle names, and the recipe of the run that it lies in.
        dense: the bundle of the dense model that the promise is against; default: the one beside the bundle, else the bundle's own
            model in float, and a note says so.

    Raises:
        DataError: there are no examples to calibrate on; it says how to give them.
        MissingExtraError: a package of the runtime isn't installed.
        ModelError: the format has no int8, the model can't be quantised, or the file doesn't keep the promise; nothing was written.
    """
    runtime = int8_runtime(to)
    runtime.check_installed(f"--to {to} --int8")
    folder = bundle_folder(path)
    bundle = load_bundle(folder, trust_code=trust_code)
    if bundle.note and note is not None:
        note(f"{folder}: {bundle.note}")
    said = _recipe_beside(folder) if recipe is None else recipe.model_dump(mode="json")
    settings = _settings({**(said.get("quantize") or {}), **(asked or {}), "to": to})
    contract = said.get("contract")
    promise = promise_of(settings, None if contract is None else Contract.model_validate(contract), bundle.task)
    config = _data_of(bundle, folder, trust_code) if recipe is None else recipe.data
    examples = Int8Examples(**run_examples(config, bundle, note, parts=_PARTS))
    beside = dense if dense is not None else dense_folder(folder)
    reference, named = _reference(bundle, beside, examples.test, trust_code)
    if beside is None and note is not None:
        note(
            "there is no dense model beside the bundle, so the promise is against the bundle's own model in float (--dense BUNDLE)"
        )
    made = quantise(
        runtime, bundle, runtime.float_file(bundle), reference, examples, settings, promise, note=note, tick=tick
    )
    facts = {
        "bundle": str(folder),
        "sha256": bundle.sha256,
        "kind": bundle.kind,
        "format": to,
        "against": named,
        **made.facts,
    }
    if not made.kept:
        test = made.facts["test"]
        raise ModelError(
            f"{folder}: in int8 {promise.metric} isn't shown to stay within {promise.max_drop:g} of the dense model's: "
            f"{test['pruned']:.4g} against {test['dense']:.4g} on {test['n']} test examples, a drop of at most {test['bound']:.3g} "
            f"with {promise.confidence:g} confidence; nothing was written; allow more (--max-drop), or give more test examples"
        )
    if out is None:
        named_folder = folder if folder.name not in ("", "..") else folder.resolve()
        out = named_folder.with_name(f"{named_folder.name}.int8.{to}")
    runtime.write(made.file, out)
    return {"path": str(out), **facts}


def _recipe_beside(folder: Path) -> dict[str, Any]:
    """Return the recipe of the run that a bundle lies in; empty where it lies in none."""
    record = folder.parent / RECORD
    return dict(load_record(record).recipe) if folder.name == "bundle" and record.is_file() else {}


def _settings(asked: dict[str, Any]) -> Quantize:
    try:
        return Quantize.model_validate(asked)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RecipeError(
            f"{'.'.join(map(str, ('quantize', *first['loc'])))}: {first['msg']}, got {first['input']!r}"
        ) from error


def _data_of(bundle: Bundle, folder: Path, trust_code: bool) -> Data:
    try:
        return data_of_bundle(bundle, folder, trust_code=trust_code)
    except PlanError as error:
        raise DataError(
            f"int8 is calibrated, chosen and tested on examples, and none are there ({error}): give the recipe with the data "
            "of the run (--recipe RECIPE)"
        ) from error


def _reference(bundle: Bundle, beside: Path | None, test: Examples, trust_code: bool) -> tuple[nn.Module, str]:
    if beside is None:
        return in_units(bundle, {"test": test}), "the bundle in float"
    dense = load_bundle(bundle_folder(beside), trust_code=trust_code)
    if dense.manifest.takes != bundle.manifest.takes or dense.manifest.class_names != bundle.manifest.class_names:
        raise DataError(
            f"{beside}: it takes other inputs or gives other classes than the bundle, so they can't be compared"
        )
    return in_units(dense, {"test": test}), str(beside)
