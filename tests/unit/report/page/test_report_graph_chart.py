"""The drawing of what hangs together: every group has a line, and every layer of it a point."""

from __future__ import annotations

import re

import pytest
import torch

from prunus.core.recipes.recipe import Model
from prunus.graph import analyze
from prunus.models import build
from prunus.pipeline.cut.graph_tables import describe
from prunus.report import GraphFacts, graph_svg
from prunus.report.page.graph_chart import MOST_GROUPS, graph_chart

altair = pytest.importorskip("altair")


@pytest.fixture(scope="module")
def view():
    model = build(Model(builder="resnet"), input_shape=(3, 8, 8), n_outputs=4, seed=0).eval()
    return describe(analyze(model, (torch.randn(2, 3, 8, 8),)), model)


def test_every_place_of_a_group_is_a_layer_that_holds_it(view):
    for group in view["groups"]:
        told = [f"{view['layers'][place]} {side}".strip() for place, side in group["places"]]
        assert told == group["members"]


def test_the_drawing_has_a_line_for_each_group_and_a_point_for_each_place(view):
    facts = GraphFacts.of(view)
    note, chart = graph_chart(altair, facts)
    drawn = chart.to_dict()["layer"]
    assert len(drawn[0]["data"]["values"]) == len(facts.groups) <= MOST_GROUPS
    points = sum(len(layer["data"]["values"]) for layer in drawn if layer["mark"]["type"] == "point")
    assert points == sum(len(group.places) for group in facts.groups)
    assert "only leave together" in note


def test_a_large_model_shows_the_groups_that_carry_most(view):
    (first, *_) = view["groups"]
    many = {**view, "groups": [{**first, "name": f"g{i}", "units": i + 2} for i in range(60)]}
    note, chart = graph_chart(altair, GraphFacts.of(many))
    names = {row["group"].split(" ")[0] for row in chart.to_dict()["layer"][0]["data"]["values"]}
    assert names == {f"g{i}" for i in range(60 - MOST_GROUPS, 60)}
    assert f"The {MOST_GROUPS} that carry most, of 60" in note


def test_the_svg_is_the_same_each_time_and_names_the_groups(view):
    pytest.importorskip("vl_convert")
    one = graph_svg(GraphFacts.of(view))
    assert one == graph_svg(GraphFacts.of(view))
    assert one.startswith("<svg")
    assert all(re.search(re.escape(group["name"]), one) for group in view["groups"])
