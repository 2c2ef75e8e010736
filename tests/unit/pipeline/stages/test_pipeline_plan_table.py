"""A plan of examples as a table: what people edit is done, exactly, and what can't be is refused with the row."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.apply import relabel_examples, remove_examples
from prunus.core.errors import PlanError
from prunus.core.files.example_table import ExampleTable
from prunus.core.types import Decision, Step
from prunus.data import ArraySource, Examples
from prunus.pipeline.stages.plan_table import steps_of_table, table_of_steps

PATH = Path("edited.parquet")
PRINT = "f" * 64


def animals(n=9):
    targets = torch.arange(n) % 3
    ids = tuple(f"photo {i}" for i in range(n))
    source = ArraySource("animals", ids, torch.zeros(n, 1), targets, "classification", ("cat", "dog", "7"))
    return Examples(source, torch.arange(n))


def values(n=6):
    source = ArraySource(
        "prices", tuple(f"house {i}" for i in range(n)), torch.zeros(n, 1), torch.arange(float(n)), "regression", ()
    )
    return Examples(source, torch.arange(n))


def table(examples, **columns):
    n = len(examples)
    filled = {name: np.full(n, None, object) for name in columns}
    for name, cells in columns.items():
        for row, value in cells.items():
            filled[name][row] = value
    return ExampleTable(examples.ids, PRINT, filled)


def done(examples, steps):
    for step in steps:
        examples = (relabel_examples if step.operation == "relabel" else remove_examples)(examples, step)
    return examples


def test_what_the_table_says_is_done_and_nothing_else():
    before = animals()
    edited = table(
        before,
        decision={0: "drop", 1: "relabel", 2: "keep", 4: "relabel"},
        new_label={1: "cat", 2: "cat", 4: "7"},
        reason={0: "blurred"},
    )
    order = np.random.default_rng(0).permutation(9)
    edited = ExampleTable(
        tuple(np.array(edited.ids)[order]), PRINT, {name: column[order] for name, column in edited.columns.items()}
    )
    steps = steps_of_table(edited, before, PRINT, PATH)
    after = done(before, steps)
    assert [step.criterion for step in steps] == ["table", "table"]
    assert after.ids == before.ids[1:]
    assert dict(zip(after.ids, after.targets.tolist(), strict=True)) == {
        **dict(zip(before.ids[1:], before.targets.tolist()[1:], strict=True)),
        "photo 1": 0,
        "photo 4": 2,
    }
    reasons = {name: text for d in steps[1].decisions for name, text in zip(d.label, d.reason, strict=True)}
    assert reasons["photo 0"] == "table: blurred"


def test_the_table_of_steps_makes_the_same_examples_again():
    before = animals()
    ids, none = np.array(before.ids, object), np.full(2, np.nan)
    change = Decision(
        "all", np.array([3, 4]), np.array([0.1, 0.2]), np.array([False, True]), np.array(["wrong", "kept"], object),
        label=ids[3:5], before=np.array([0.0, np.nan]), after=np.array([1.0, np.nan]),
    )  # fmt: skip
    go = Decision(
        "all", np.arange(2), np.array([0.3, 0.9]), np.array([False, True]), np.array(["wrong, too", "kept"], object),
        label=ids[:2], before=none, after=none,
    )  # fmt: skip
    steps = (Step("relabel", "example", "confident_learning", (change,)), Step("remove", "example", "aum", (go,)))
    made = table_of_steps(before, steps, PRINT)
    assert made.columns["decision"].tolist() == ["drop", *["keep"] * 2, "relabel", *["keep"] * 5]
    assert made.columns["label"].tolist() == ["cat", "dog", "7"] * 3
    assert (made.columns["new_label"][3], made.columns["reason"][3]) == ("dog", "wrong")
    np.testing.assert_allclose(made.columns["probability"][3:5], [0.9, 0.8])
    np.testing.assert_allclose(made.columns["aum"][:3], [0.3, 0.9, np.nan])
    again, first = (done(before, s) for s in (steps_of_table(made, before, PRINT, PATH), steps))
    assert again.ids == first.ids
    assert again.targets.tolist() == first.targets.tolist()


def test_a_spreadsheet_that_made_numbers_of_labels_is_understood():
    before = animals()
    made = table(before, decision={0: "relabel"})
    numbers = np.full(9, np.nan)
    numbers[0] = 7.0
    steps = steps_of_table(made.with_columns({"new_label": numbers}), before, PRINT, PATH)
    assert done(before, steps).targets.tolist()[0] == 2


def broken():
    """Yield what a table may say wrongly, and what is answered."""
    before = animals()
    yield (
        "other data",
        before,
        ExampleTable(before.ids, "0" * 64, {}),
        r"made for other data \(fingerprint '0000.*expected ffff",
    )
    yield (
        "a row is missing",
        before,
        ExampleTable(before.ids[1:], PRINT, {}),
        "1 of 9 training examples have no row .*'photo 0'",
    )
    more = ExampleTable((*before.ids, "photo x"), PRINT, {})
    yield "a row of nothing", before, more, "1 rows are of no training example .*'photo x'"
    yield (
        "no class",
        before,
        table(before, decision={4: "relabel"}, new_label={4: "cot"}),
        ("'photo 4' has the new_label 'cot', which is no class: did you mean 'cat'"),
    )
    yield (
        "no new label",
        before,
        table(before, decision={4: "relabel"}),
        "'photo 4' is to be relabelled and has no new_label",
    )
    yield (
        "no decision",
        before,
        table(before, new_label={4: "cat"}),
        "'photo 4' has the new_label 'cat' and no decision",
    )
    yield (
        "label edited",
        before,
        table(before, label={4: "cat"}),
        "'photo 4' has label 'cat', and the data say 'dog'.*new_label",
    )
    yield (
        "a class empty",
        before,
        table(before, decision=dict.fromkeys((1, 4, 7), "drop")),
        ("no training example of class 'dog' would be left of 3.*allow_empty_classes"),
    )
    yield (
        "emptied by new labels",
        before,
        table(before, decision=dict.fromkeys((1, 4, 7), "relabel"), new_label=dict.fromkeys((1, 4, 7), "cat")),
        "no training example of class 'dog' would be left of 3",
    )
    yield "nothing left", before, table(before, decision=dict.fromkeys(range(9), "drop")), "drops all 9 examples"
    houses = values()
    yield (
        "values",
        houses,
        table(houses, decision={2: "relabel"}, new_label={2: "7"}),
        ("'house 2' is to be relabelled, which only an example of one class can be .*regression.*use drop or keep"),
    )


@pytest.mark.parametrize(("examples", "given", "says"), [case[1:] for case in broken()], ids=[c[0] for c in broken()])
def test_what_cant_be_done_is_refused_in_one_line_with_the_row(examples, given, says):
    with pytest.raises(PlanError, match=says) as caught:
        steps_of_table(given, examples, PRINT, PATH)
    assert str(caught.value).startswith("edited.parquet")
    assert "\n" not in str(caught.value)


def test_a_class_may_go_where_that_is_asked_for():
    before = animals()
    edited = table(before, decision=dict.fromkeys((1, 4, 7), "drop"))
    after = done(before, steps_of_table(edited, before, PRINT, PATH, allow_empty_classes=True))
    assert set(after.targets.tolist()) == {0, 2}


def test_values_may_be_dropped():
    before = values()
    after = done(before, steps_of_table(table(before, decision={2: "drop"}), before, PRINT, PATH))
    assert after.ids == tuple(name for name in before.ids if name != "house 2")
