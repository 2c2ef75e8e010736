"""No name that somebody else chose steers the terminal, runs in a spreadsheet, or turns a page's text round."""

import csv
import io

import pytest
from rich.console import Console

from prunus.cli import ending
from prunus.cli.progress import Display
from prunus.core.errors import DataError
from prunus.core.events import Event
from prunus.report import predictions_csv
from prunus.report.page.page_marks import escape

NASTY = "\x1b[2Jcat\u202egpj.exe\x07 [red]x[/] [/]"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError(f"{NASTY}\nand a second line"), 4, "error: "),
        (PermissionError(13, "Permission denied", f"/x/{NASTY}"), 7, "Permission denied"),
        (MemoryError(), 8, "not enough memory"),
        (RuntimeError(f"{NASTY}\n\nException raised from f at x.cpp:1"), 1, "internal error: RuntimeError"),
    ],
)
def test_an_error_is_one_line_that_steers_nothing(capsys, error, code, words):
    assert ending.explain(error, ["graph"]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.endswith("\n")
    assert said[:-1].isprintable()


@pytest.mark.parametrize("kind", ["note", "warning"])
@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_told_on_the_way_steers_nothing_and_is_no_markup(kind, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=200)
    with Display(console) as display:
        display(Event(kind, "load data", NASTY))
    said = console.file.getvalue()
    assert "\\x1b[2Jcat\\u202egpj.exe\\x07 [red]x[/] [/]" in said
    assert "\u202e" not in said
    assert "\x07" not in said


@pytest.mark.parametrize("terminal", [True, False])
def test_an_end_is_shown_whether_or_not_somebody_timed_it(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=200)
    with Display(console) as display:
        for facts in ({"seconds": 1.25}, {}):
            display(Event("start", "folds"))
            display(Event("end", "folds", facts=facts))
    said = console.file.getvalue()
    assert said.splitlines() == ["folds: done in 1.2 s", "folds: done"] if not terminal else "folds" in said


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1"])
def test_a_formula_is_text_in_a_spreadsheet(cell):
    (row,) = csv.DictReader(io.StringIO(predictions_csv([{"id": cell, "label": "cat", "probability": 0.5}])))
    assert row["id"] == f"'{cell}"


def test_a_carriage_return_in_a_name_doesn_t_end_a_row():
    (row,) = csv.DictReader(io.StringIO(predictions_csv([{"id": "a\r=1", "label": "cat"}])))
    assert row == {"id": "a\\r=1", "label": "cat"}


def test_numbers_and_plain_names_stay_as_they_are():
    rows = [{"id": "-7", "value": -1.5}, {"id": "+3e5", "value": 2.0}, {"id": "a-b=c", "value": 0.0}]
    read = list(csv.DictReader(io.StringIO(predictions_csv(rows))))
    assert [row["id"] for row in read] == ["-7", "+3e5", "a-b=c"]
    assert float(read[0]["value"]) == -1.5


def test_a_page_holds_no_marks_that_turn_text_round_and_no_tags_of_names():
    assert escape("<script>\u202ex</script>\na") == "&lt;script&gt;\\u202ex&lt;/script&gt;\na"
