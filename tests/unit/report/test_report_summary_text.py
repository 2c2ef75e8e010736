import csv
import io

import pytest
from rich.console import Console

from prunus.report import (
    exported_line,
    predictions_csv,
    print_criteria,
    print_plan,
    print_predictions,
    print_qualities,
    print_summary,
)
from prunus.report.format import mask_note
from prunus.report.page.page_tables import cost
from report_samples import facts_of, number, plainest, regression, sample

HOSTILE = "[red]x[/b] \x1b[31m\u202e"


def printed(function, *args, width=140):
    console = Console(file=io.StringIO(), width=width)
    function(*args, console)
    return console.file.getvalue()


@pytest.mark.parametrize("make", [sample, regression, plainest])
@pytest.mark.parametrize("width", [140, 60])
def test_a_summary_is_plain_lines_when_piped(make, width):
    assert "\x1b" not in printed(print_summary, make(), width=width)


def test_a_summary_says_what_was_measured_and_what_went():
    text = " ".join(word for word in printed(print_summary, sample()).replace("\n", " ").split(" ") if word)
    for part in (
        "no measurable difference",
        "-1.0 points (-2.2 to +0.3)",
        "MACs per example 50\u2009000 10\u2009000 5.0x",
        "torch eager 4 ms 2 ms 2.0x (1.9x to 2.1x)",
        "channels: 12 of 24 kept in 2 groups",
        "8 of 100 removed, 2 relabelled",
        "9 of 10 found, 8 repaired",
        "note: a note",
    ):
        assert part in text


def test_metrics_that_say_the_same_are_one_line():
    (first, *_) = facts_of(sample())["comparison"]
    names = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "precision_weighted")
    text = printed(print_summary, sample(comparison=[{**first, "metric": name} for name in names]))
    shown = [name for name in names if f"\n{name} " in text]
    assert shown == ["accuracy", "f1_macro"]
    more = "3 more with the same verdict (weighted F1, macro precision, weighted precision): in the report, and with --json"
    assert more in text
    assert "more with the same verdict" not in printed(print_summary, sample())


def test_one_seed_says_that_it_is_one():
    assert "one seed: says nothing about other seeds" in printed(print_summary, plainest())


def test_kinds_of_units_are_counted_apart():
    layers = [
        {"name": name, "granularity": kind, "before": 10, "after": 5}
        for name, kind in (("a", "channel"), ("b", "channel"), ("c", "weight"))
    ]
    text = printed(print_summary, sample(layers=layers, kind="graph"))
    assert "channels: 10 of 20 kept in 2 groups" in text
    assert "weights: 5 of 10 kept in 1 group" in text
    assert "save bytes, not time" in text
    assert "traced computation" in text


@pytest.mark.parametrize(
    ("granularity", "said"),
    [("weight", "Weights that are zero"), ("2:4", "Weights (2:4) that"), ("4x1", "4x1 blocks that"), ("channel", None)],
)
def test_zeros_are_said_to_save_no_time_and_what_would(granularity, said):
    record = sample(layers=[{"name": "a", "granularity": granularity, "before": 10, "after": 5}])
    for text in (printed(print_summary, record), mask_note(record), cost(record)):
        text = " ".join(text.split())
        assert ((said or "save bytes, not time") in text) == (said is not None)
        assert ("4x1 blocks, or 90 % of the weights. None was measured in this run;" in text) == (said is not None)
        assert ("`prunus export BUNDLE --to mnn`" in text) == (said is not None)


@pytest.mark.parametrize(
    ("zeros", "said"),
    [("no", ""), ("1x1", ", sparse kernels"), ("4x1", ", sparse kernels for 4x1 blocks")],
)
def test_an_export_is_one_line_with_its_file_size_kernels_and_difference(zeros, said):
    facts = {"path": "a/b.mnn", "size_bytes": 21_000_000, "difference": 1.26e-6, "batches": [1, 3], "zeros": zeros}
    facts |= {"sizes": ["x (any batch, 3, 8 to 32)", "ids (any batch, 1 to 9)"]}
    assert exported_line(facts) == (
        f"a/b.mnn: 21 MB{said}; its outputs are within 1e-06 of the largest one of the bundle's, for batches of 1, 3; "
        "it takes x (any batch, 3, 8 to 32), ids (any batch, 1 to 9)"
    )


def test_an_export_names_the_real_examples_and_what_was_checked_where_nothing_can_run():
    facts = {
        "path": "a.pt2",
        "size_bytes": 2000,
        "difference": 1e-7,
        "batches": [1, 3],
        "zeros": "no",
        "sizes": ["(n, 3)"],
    }
    facts |= {"format": "coreml", "version": "opset 20", "n_samples": 7, "checked": ["3 layers", "weights are finite"]}
    assert exported_line(facts) == (
        "a.pt2: 2 kB (opset 20); its outputs are within 1e-07 of the largest one of the bundle's, "
        "for batches of 1, 3 and 7 real examples; it takes (n, 3)"
    )
    assert exported_line(facts | {"difference": None, "batches": []}) == (
        "a.pt2: 2 kB (opset 20); coreml files don't run on this system, so no output was compared: 3 layers, weights are finite; "
        "it takes (n, 3)"
    )


def assert_shown(text):
    """Markup is shown as it is, and nothing reaches the terminal but text."""
    assert "[red]x[/b]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_names_from_data_are_no_markup_and_no_commands_to_the_terminal():
    score = {part: number(0.9, name=part) for part in ("precision", "recall", "f1")}
    quality = {"metrics": [number(0.9, name="accuracy")], "per_class": [{"name": HOSTILE, "support": 3, **score}]}
    cost = {"parameters": 1, "macs": 1, "size_bytes": 1}
    plan = [
        {"operation": "remove", "granularity": "example", "criterion": "aum", "kept": 1, "units": 2}
        | {"strata": [{"name": HOSTILE, "kept": 1, "units": 2}]}
    ]
    assert_shown(printed(print_qualities, {"bundle": HOSTILE, "splits": {"test": quality}, "cost": cost}))
    assert_shown(printed(print_plan, plan))
    assert_shown(printed(print_predictions, [{"id": HOSTILE, "label": "a", "probability": 0.123456}]))
    assert_shown(printed(print_summary, sample(notes=[HOSTILE])))


def test_a_bundle_has_one_size_by_its_name():
    quality = {"metrics": [number(0.9, name="accuracy")], "per_class": []}
    cost = {"parameters": 1, "macs": 1, "size_bytes": 18_500, "bundle_bytes": 26_300}
    said = printed(print_qualities, {"bundle": "b", "splits": {"test": quality}, "cost": cost})
    assert "18.5 kB of weights (the bundle with all that goes along: 26.3 kB)" in " ".join(said.split())


def test_numbers_that_are_compared_are_said_in_one_unit():
    record = sample()
    costs = {"parameters": 37_000_000, "nonzero_parameters": 37_000_000, "macs": 1_200_000_000, "size_bytes": 4200}
    smaller = costs | {"parameters": 9_857_536, "nonzero_parameters": 9_857_536, "macs": 300_000_000}
    record = sample(cost={"dense": costs, "pruned": smaller})
    said = " ".join(printed(print_summary, record).split())
    assert "parameters 37 M 9.86 M" in said
    assert "MACs per example 1.2 G 0.3 G" in said
    assert "9.86 M" in cost(record)


def test_a_title_may_hold_markup_that_does_not_close():
    plan = [{"operation": "[/]", "granularity": "[b", "criterion": "c", "kept": 0, "units": 0, "strata": []}]
    assert "[/]" in printed(print_plan, plan)


def test_a_plan_is_told_with_the_numbers_that_stay_and_go():
    plan = [
        {"operation": "prune", "granularity": "channel", "criterion": "taylor", "kept": 6, "units": 24}
        | {"strata": [{"name": "conv1", "units": 24, "kept": 6}]}
    ]
    text = printed(print_plan, plan)
    assert "1. prune channels by taylor: 6 of 24 stay" in text
    assert text.splitlines()[2].split() == ["conv1", "24", "6", "18"]


def test_predictions_go_through_csv_whatever_their_names_hold():
    rows = [{"id": 'a,"b"\n', "label": "[x]"}, {"id": "2", "label": "y"}]
    assert list(csv.DictReader(io.StringIO(predictions_csv(rows)))) == rows
    assert predictions_csv([]) == "id\n"


def test_no_predictions_are_said():
    assert printed(print_predictions, []) == "no examples\n"


def test_criteria_are_listed():
    row = {
        "name": "taylor",
        "section": "strategy",
        "judges": "channel",
        "needs": "weight",
        "summary": "loss",
        "reference": "2019",
    }
    assert "taylor" in printed(print_criteria, [row])


def test_a_class_without_a_number_has_a_dash():
    score = {part: number(None, name=part) for part in ("precision", "recall", "f1")}
    quality = {"metrics": [number(0.9, name="accuracy")], "per_class": [{"name": "none", "support": 0, **score}]}
    facts = {"bundle": "b", "splits": {"test": quality}, "cost": {"parameters": 1, "macs": 1, "size_bytes": 1}}
    assert "–" in printed(print_qualities, facts)


def test_how_many_of_the_labels_called_wrong_are_is_said_where_nobody_knows():
    facts = [
        {"action": "relabelled", "n": 40, "precision": number(0.9, 0.82, 0.97), "noise": 0.06},
        {"action": "removed", "n": 12, "precision": number(0.4, 0.2, 0.6), "noise": 0.06},
    ]
    text = " ".join(printed(print_summary, sample(precision=facts), width=200).split())
    assert "estimated to be wrong, if by chance: 90.0 % of the 40 relabelled (82.0 % to 97.0 %)" in text.replace(
        "%", " %"
    ).replace("  ", " ")
    assert "40.0 % of the 12 removed" in text.replace("%", " %").replace("  ", " ")
    assert "estimated to be wrong" not in printed(print_summary, sample())
