"""Does the grid say what was shown, what is the smallest, and how near it came where nothing was?"""

import io
import re

import pytest
from pydantic import ValidationError
from rich.console import Console

from prunus.report import render_html
from prunus.report.page.joint.joint_text import joint_line, print_joint
from prunus.report.record_gate import JointFacts
from report_samples import sample


def cell(mean, difference=None, *, kept=False, parameters=1.0, epochs=(5, 5)):
    apart = None if difference is None else {"value": difference, "low": difference - 0.02, "high": difference + 0.02}
    return {"values": [mean - 0.01, mean + 0.01], "mean": mean, "low": mean - 0.05, "high": mean + 0.05} | {
        "difference": apart,
        "kept": kept,
        "parameters": parameters,
        "macs": parameters / 2,
        "epochs_after": list(epochs),
    }


def facts(*, kept=((0, 1), (1, 0)), smallest=(0, 1), **changes):
    plain = {
        "metric": "accuracy",
        "higher_is_better": True,
        "max_drop": 0.03,
        "confidence": 0.95,
        "each": 0.95,
        "method": "paired",
        "model_is": "keep_fraction",
        "n_train": 1000,
        "n_validation": 200,
        "seeds": [0, 1],
        "data": [{"asked": 1.0, "kept": 1.0, "n": [1000, 1000]}, {"asked": 0.5, "kept": 0.495, "n": [490, 500]}],
        "model": [1.0, 0.5],
        "cells": [
            [cell(0.9, kept=True), cell(0.89, -0.01, kept=(0, 1) in kept, parameters=0.3)],
            [cell(0.92, 0.02, kept=(1, 0) in kept), cell(0.7, -0.2, parameters=0.3)],
        ],
        "smallest": smallest,
    }
    return JointFacts.model_validate(plain | changes)


def printed(one):
    into = io.StringIO()
    print_joint(one, Console(file=into, width=160))
    return into.getvalue()


def test_the_table_has_each_cell_with_its_difference_and_marks_what_is_no_worse():
    lines = printed(facts()).splitlines()
    assert "accuracy on 200 validation examples, mean over 2 seeds, as many steps in each cell" in lines[0]
    assert re.search(r"1 \(100 %\)\s+0\.5 \(30 %\)", lines[2])
    assert re.search(r"100 % \(1\u2009000\)\s+90\.0 %\s+89\.0 % \*", lines[3])
    assert "-1.0 (-3.0 to +1.0)" in lines[4]
    assert re.search(r"50 % \(490 to 500\)\s+92\.0 % \*\s+70\.0 %", lines[5])


def test_the_sentence_names_what_is_shown_and_the_smallest():
    said = joint_line(facts())
    assert (
        "by more than 3 points (95 % together): 100 % of the data with 30 % of the parameters; 50 % of the data" in said
    )
    assert said.endswith("The smallest: 100 % of the data with 30 % of the parameters")
    assert joint_line(facts(kept=[(1, 0)], smallest=(1, 0))).endswith("100 % of the parameters, and nothing else")


def test_where_nothing_is_shown_the_nearest_is_named_with_how_much_worse_it_may_be():
    rows = [
        [cell(0.9, kept=True), cell(0.87, -0.03), cell(0.91, 0.01)],
        [cell(0.88, -0.02), cell(0.9, 0.0), cell(0.9, 0.0)],
    ]
    said = joint_line(facts(cells=rows, model=[1.0, 0.5, 0.2], smallest=None))
    assert "nothing smaller is shown to be no worse" in said
    assert "the nearest, 50 % of the data with 100 % of the parameters, may be worse by 4 points" in said


def test_uneven_training_is_said_and_one_seed_says_nothing_of_others():
    uneven = [[cell(0.9, kept=True), cell(0.9, 0.0, epochs=(4, 5))]]
    one = facts(cells=uneven, data=facts().model_dump()["data"][:1], smallest=None, seeds=[0])
    text = printed(one).splitlines()[0]
    assert "not as many steps in each cell" in text
    assert "one seed: says nothing about other seeds" in text


def test_the_page_has_a_map_whose_cells_say_their_numbers_on_hover_and_colours_by_what_is_better():
    page = render_html(sample(joint=facts().model_dump()))
    assert "Data and model together" in page
    cells = re.findall(r'<td class="([^"]*)" style="--tone:var\(--(\w+)\);--strength:(\d+)%" title="([^"]*)">', page)
    assert [kind for kind, *_ in cells] == ["", "kept least", "kept", ""]
    assert [tone for _, tone, *_ in cells] == ["leaf", "red", "leaf", "red"]
    assert [int(strength) for _, _, strength, _ in cells] == [0, 16, 22, 70]
    assert "seed by seed: 88.0 %, 90.0 %" in cells[1][3]
    assert "89.0 % (84.0 % to 94.0 % over seeds)" in cells[1][3]
    assert "shown to be no worse" in cells[1][3]
    assert "Data and model together" not in render_html(sample())


def test_of_an_error_less_is_better_and_differences_have_no_points():
    page = render_html(sample(joint=facts(metric="mae", higher_is_better=False).model_dump()))
    assert re.findall(r"--tone:var\(--(\w+)\)", page) == ["leaf", "leaf", "red", "leaf"]
    assert "points" not in joint_line(facts(metric="mae", higher_is_better=False))


@pytest.mark.parametrize("changes", [{"smallest": (2, 0)}, {"model": [1.0]}, {"data": []}])
def test_what_is_no_grid_is_refused(changes):
    with pytest.raises(ValidationError):
        facts(**changes)
