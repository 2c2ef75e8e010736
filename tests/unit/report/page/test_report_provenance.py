"""A reader learns which model was cut by what, how far, when and in which time; and the page shows what differs."""

import re

import pytest

from prunus.core.recipes.recipe_file import make_recipe
from prunus.report import render_html
from prunus.report.format import lead_metrics
from prunus.report.page.graph_chart import graph_chart
from prunus.report.page.provenance import made
from prunus.report.record import GraphFacts
from report_samples import facts_of, plainest, sample


def told(timing=None, **recipe):
    tree = {"data": {"source": "set.csv"}, "model": {"builder": "cnn", "args": {"width": 8}}, **recipe}
    config = make_recipe(tree, "r").model_dump(mode="json")
    return dict(made(sample(recipe=config, timing=timing or {})))


def test_the_model_the_criterion_and_the_budget_are_said():
    strategy = {"criterion": "taylor", "keep_fraction": 0.25, "schedule": {"kind": "cubic", "rounds": 3}}
    facts = told(strategy=strategy, recovery={"method": "distil", "epochs": 7, "adjust": ["batch_norm"]})
    assert facts["model"] == "cnn (width 8)"
    assert facts["pruned by"] == "taylor, by channel, uniform allocation, cubic in 3 rounds"
    assert facts["budget"] == "keep_fraction 0.25"
    assert facts["recovery"] == "batch-norm; distil, 7 epochs"


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"target": {"macs": 0.3}}, "0.3 of the MACs"),
        ({"contract": {"max_drop": 0.01}}, "as little parameters as the contract allows, at most 0.01 less accuracy"),
        (
            {"target": {"latency": 0.5}, "contract": {"max_drop": 0.01}},
            "0.5 of the latency, at most 0.01 less accuracy",
        ),
    ],
)
def test_a_goal_is_the_budget(goal, said):
    assert told(strategy={"criterion": "taylor"}, **goal)["budget"] == said


def test_the_time_is_the_whole_time_with_the_date_and_what_took_most():
    seconds = {
        "seed 0 / train": 20.0,
        "seed 1 / train": 22.0,
        "seed 0 / recover 1 of 2": 5.0,
        "evaluate": 30.0,
        "ship": 1.0,
    }
    facts = told({"seconds": seconds, "total_seconds": 81.0, "finished": "2026-01-02T03:04:05+00:00"})
    assert facts["time"] == "81 s (train 42 s, evaluate 30 s, recover 5 s)"
    assert facts["date"] == "2026-01-02 03:04:05 UTC"


def test_what_was_not_done_or_makes_no_sense_has_no_line():
    assert "pruned by" not in told(strategy=None)
    odd = sample(recipe={"model": 3, "strategy": [1], "target": "x", "recovery": None}, timing={})
    assert made(odd) == []
    made(plainest())


def rows(*verdicts):
    (first, *_) = facts_of(sample())["comparison"]
    names = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "precision_weighted", "recall_macro")
    return [{**first, "metric": name, "verdict": verdict} for name, verdict in zip(names, verdicts, strict=False)]


def test_metrics_that_say_the_same_are_folded_and_one_that_differs_never_is():
    same = "no measurable difference"
    shown, folded = lead_metrics(sample(comparison=rows(same, same, same, "worse", same, same)))
    assert [row.metric for row in shown] == ["accuracy", "precision_macro"]
    assert {row.verdict for row in folded} == {same}
    shown, folded = lead_metrics(sample(comparison=rows(*["better"] * 6)))
    assert [row.metric for row in shown] == ["accuracy", "f1_macro"]
    assert len(folded) == 4
    assert lead_metrics(sample())[1] == [], "two or three are no crowd"
    page = render_html(sample(comparison=rows(*["better"] * 6)))
    assert "4 more with the same verdict" in page
    assert page.index("4 more with the same verdict") < page.index("weighted precision")


@pytest.mark.parametrize("n_layers", [2, 5, 40])
def test_no_point_lies_on_the_numbers_at_its_right(n_layers):
    altair = pytest.importorskip("altair")
    convert = pytest.importorskip("vl_convert").vegalite_to_svg
    group = {
        "name": "features.conv_of_the_last_stage",
        "kind": "channel",
        "units": 4096,
        "parameters_per_unit": 123_456,
    }
    group |= {"macs_per_unit": 12_345_678.0, "places": [[0, "out"], [n_layers - 1, "in"]]}
    facts = GraphFacts.model_validate({"layers": [f"l{i}" for i in range(n_layers)], "groups": [group]})
    _, chart = graph_chart(altair, facts, width=430)
    sized = chart.properties(width=430).configure(autosize={"type": "fit-x", "contains": "padding"})
    svg = convert(sized.configure_axis(labelLimit=150).to_dict())
    point = max(float(x) for x in re.findall(r'aria-roledescription="point"[^>]*transform="translate\(([\d.]+),', svg))
    (start,) = re.findall(r'"text mark" text-anchor="start" transform="translate\(([\d.]+),', svg)
    assert point + 5 < float(start)
