"""One place decides what may reach outside, and it knows every field of a recipe."""

import typing

import pytest
from pydantic import BaseModel

from prunus.core.errors import PlanError
from prunus.core.recipes.recipe import Data, Model, Recipe
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.recipes.trust import Permission, check_reach, reaches

WITHIN = {"data": {"source": "sklearn:digits"}, "model": {"builder": "resnet", "args": {"width": 8}}}
REACHING = {
    "data.source": "mine:load",
    "data.test": "photos/test",
    "data.validation": "mine:load",
    "data.calibration": "more.csv",
    "data.cache": "cache",
    "model.builder": "mine:build",
    "model.weights": "w.safetensors",
    "train.loss": "mine:loss",
    "recovery.loss": "mine:loss",
    "data.task": "mine:Task",
    "examples.plan": "edited.parquet",
    "examples.recording": "recorded",
    "dispatch.address": "10.0.0.5:6379",
    "export.processor": "whole",
}
BESIDE = {"data": {"args": {}}, "model": {"args": {}}, "dispatch": {"backend": "ray"}, "export": {"to": ["hf"]}}
INERT = {
    "name",  # a word of a pattern without slashes
    "data.target",  # a column of the data
    "examples.remove.*.criterion",  # names in a registry
    "examples.cover.criterion",
    "features",
    "strategy.criterion",
    "strategy.granularity.*",
    "strategy.exclude.*",  # patterns over names of the model
    "strategy.layers.*.match",
    "strategy.layers.*.granularity.*",
    "recovery.distil.modules.*",
    "recovery.lora.modules.*",
    "contract.metric",  # names in a registry; test_own_metrics has those of the user's
    "evaluation.metrics.*",
    "data.columns.*",
    "data.ignore.*",
    "data.kinds",
    "data.missing.*",
    "data.split.column",
    "data.split.groups",
    "data.split.time",
    "data.groups",
    "runtime.device",  # cpu, cuda or auto
    "quantize.keep_float.*",  # patterns over names of the model
    "export.to.*",  # names in a registry
    "quantize.metric",  # a name in a registry
    *(f"card.{name}" for name in ("description", "version", "license", "data_license", "contact")),  # words for people
    *(f"card.{name}.*" for name in ("authors", "users", "intended_use", "out_of_scope", "limitations", "ethical")),
    *(f"card.{name}.*" for name in ("tags", "language")),
    # prunus search alone reads these, of a recipe that the user hands over; no file that travels starts a search.
    "search.space",
    "search.space.*",
    "search.metric",
    "search.contract.metric",
    "search.storage",
}


def free_fields(kind, at=""):
    """Yield the keys below a type that take any text, or anything."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from free_fields(field.annotation, f"{at}.{name}".strip("."))
    elif kind in (str, typing.Any):
        yield at
    elif typing.get_origin(kind) is not typing.Literal:
        star = ".*" if typing.get_origin(kind) in (tuple, list) else ""
        for inner in typing.get_args(kind):
            yield from free_fields(inner, at + star)


def test_every_free_field_of_a_recipe_reaches_outside_or_is_known_to_be_inert():
    free = set(free_fields(Recipe))
    known = {*REACHING, "data.args", "model.args", "output", *INERT}
    assert free - known == set(), "decide in core.trust what a file that travels may put there"


@pytest.mark.parametrize(("key", "value"), REACHING.items())
def test_what_reaches_outside_is_refused_unless_trusted_or_given(key, value):
    section, field = key.split(".")
    tree = {
        **WITHIN,
        section: {**WITHIN.get(section, {}), field: value, **BESIDE.get(section, {})},
    }
    recipe = make_recipe(tree)
    with pytest.raises(
        PlanError, match=rf"there: {key} names a (function|file|folder|cluster) .*{value}.*: say so"
    ) as caught:
        check_reach(recipe, Permission(given=("output",)), where="there", way="say so")
    assert "\n" not in str(caught.value)
    for allowed in (
        Permission(everything=True),
        Permission(given=("output", key)),
        Permission(given=("output", section)),
    ):
        check_reach(recipe, allowed, where="there", way="say so")
    with pytest.raises(PlanError):
        check_reach(recipe, Permission(given=("output", key[:-1])), where="there", way="say so")


def test_a_metric_of_ones_own_is_a_function_that_is_called():
    recipe = make_recipe({**WITHIN, "evaluation": {"metrics": ["mine:score"]}})
    with pytest.raises(PlanError, match=r"evaluation\.metrics names a function to call, 'mine:score'"):
        check_reach(recipe, Permission(given=("output",)), where="there", way="say so")
    check_reach(recipe, Permission(given=("output", "evaluation")), where="there", way="say so")


def test_an_output_folder_always_reaches_outside():
    with pytest.raises(PlanError, match="output names a folder to write to, 'runs/prunus'"):
        check_reach(make_recipe(WITHIN), Permission(), where="there", way="say so")


@pytest.mark.parametrize("section", [Data(source="my:load", args={"path": "/x"}), Model(builder="my:f", args={"n": 1})])
def test_the_function_of_the_user_gets_no_arguments_of_a_stranger(section):
    with pytest.raises(PlanError, match="args names arguments for it"):
        check_reach(section, Permission(given=("source", "builder")), where="there", way="say so")


@pytest.mark.parametrize(
    "source",
    ["os:system", "/etc/passwd", "../x.csv", "s3://bucket/x.csv", "x.parquet", "memory", "", "sklearn", "Sklearn:iris",
     "a.b:c.d", "C:\\x", "sklearn/x:iris", " sklearn:iris"],
)  # fmt: skip
def test_only_what_comes_with_prunus_is_within(source):
    assert list(reaches(Data(source=source)))


@pytest.mark.parametrize("source", ["file:///etc/passwd", "http://x/y.csv", "zip://a::s3://bucket/b.zip"])
def test_a_url_that_is_not_followed_is_no_source_at_all(source):
    with pytest.raises(ValueError, match=r"isn't allowed|is never read|a chain of them"):
        Data(source=source)


def test_a_value_is_shown_without_its_escapes():
    with pytest.raises(PlanError) as caught:
        check_reach(Data(source="\x1b[2J\u202e" + "x" * 500), Permission(), where="there", way="say so")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
