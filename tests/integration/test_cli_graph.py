"""`prunus graph` on a recipe, a built-in and a function, and its bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from prunus.core.errors import ModelError
from prunus.pipeline.graph_view import graph_of_model, parse_input


def prunus(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "prunus", *arguments], capture_output=True, text=True, check=False, **settings
    )


def test_a_built_in_is_told_as_text_as_json_and_as_a_drawing(tmp_path):
    done = prunus("graph", "cnn", "--input", "2x1x8x8", "--json", "--svg", str(tmp_path / "graph.svg"))
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert {"name", "kind", "units", "members", "places", "parameters_per_unit", "macs_per_unit"} <= view["groups"][
        0
    ].keys()
    assert sum(g["units"] * g["parameters_per_unit"] for g in view["groups"]) > 0
    assert all(item["reason"] and item["axes"] for item in view["frozen"])
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")
    assert "where they lie" in prunus("graph", "cnn", "--input", "2x1x8x8").stdout


@pytest.mark.parametrize("text", ["", "2x", "ids:", "2x-1", "ids:2x3:0", "floats:2x3", "2x3:9"])
def test_an_input_that_is_no_shape_says_what_is_wanted(text):
    with pytest.raises(ModelError, match="--input must be a shape like 2x3x32x32"):
        parse_input(text)


def test_inputs_that_the_model_does_not_take_are_told():
    with pytest.raises(ModelError, match="got inputs of shape"):
        graph_of_model("cnn", ["2x3"])


def test_a_model_without_inputs_is_refused_with_what_to_say():
    done = prunus("graph", "cnn")
    assert done.returncode == 2
    assert "--input 2x3x32x32" in done.stderr
