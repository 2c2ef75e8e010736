"""A search says what is delivered and what was shown of it, or that nothing was."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from prunus.report import print_summary, render_html
from prunus.report.page.searches import outcome
from prunus.report.record_searches import SearchFacts
from report_samples import facts_of, sample

CONTRACT = {"metric": "accuracy", "max_drop": 0.01, "confidence": 0.95}


def row(number, share, kept=None, **more):
    test = None
    if kept is not None:
        test = CONTRACT | {
            "dense": 0.95,
            "pruned": 0.95,
            "drop": 0.0,
            "bound": 0.0062,
            "n": 400,
            "n_lost": 2,
            "n_gained": 2,
        }
        test |= {"kept": kept, "method": "exact"}
    return {
        "number": number, "started_from": number - 1, "asked": share, "share": share, "calibration_drop": 0.005,
        "promising": True, "test": test, "verdict": {None: "not tested", True: "kept", False: "not shown"}[kept],
    } | more  # fmt: skip


def search(candidates, delivered, **more):
    facts = {"seed": 0, "cost": "latency", "asked": 0.5, "floor": 0.1, "runtime": "onnxruntime", "contract": CONTRACT}
    facts |= {"n_validation": 400, "n_calibration": 200, "candidates": candidates, "delivered": delivered}
    return SearchFacts.model_validate(facts | more)


def test_what_was_asked_for_is_delivered_with_its_bound():
    said = outcome(search([row(1, 0.7, True), row(2, 0.5, True)], 2))
    assert said == (
        "50 % of the dense latency is left (50 % was asked for), measured in ONNX Runtime; accuracy drops by at most "
        "0.62 points with 95 % confidence on 400 validation examples (1.00 points allowed)"
    )


def test_what_nothing_is_promised_about_is_named_with_its_reason():
    about = {
        "column": "site",
        "name": "north",
        "drop": 0.0,
        "bound": 0.004,
        "max_drop": 0.01,
        "groups": [],
        "kept": True,
    }
    about |= {"left_out": ["south"], "unknown": ["east", "west"]}
    found = row(1, 0.5, True)
    found["test"] |= {"worst_group": about}
    said = outcome(search([found], 1))
    assert "nothing is promised about south, which have too few examples; " in said
    assert said.endswith("; nothing is promised about east, west, where accuracy is no number")


def test_less_than_was_asked_for_is_said():
    said = outcome(search([row(1, 0.7, True), row(2, 0.5, False)], 1))
    assert (
        "70 % of the dense latency is left, the least that was shown to keep the contract (50 % was asked for)" in said
    )


def test_nothing_that_keeps_the_contract_is_said_first():
    said = outcome(search([row(1, 0.7, False)], None))
    assert said.startswith("no smaller model was found that keeps the contract (accuracy drops by at most 1.00 points)")


@pytest.mark.parametrize(("cost", "verb"), [("bytes", "are"), ("latency", "is")])
def test_a_target_alone_promises_nothing(cost, verb):
    found = search([row(1, 0.5)], 1, contract=None, runtime=None, cost=cost)
    assert outcome(found) == f"50 % of the dense {cost} {verb} left (50 % was asked for)"


def test_text_and_page_list_all_that_was_tried():
    found = search([row(1, 0.7, True), row(2, 0.5, False), row(3, 0.6, promising=False)], 1)
    record = sample(searches=[found.model_dump(mode="json")])
    text = io.StringIO()
    print_summary(record, Console(file=text, width=200))
    page = render_html(record)
    for shown in (text.getvalue(), page):
        for cell in ("1 (delivered)", "0.62 points", "not shown", "not tested", "the least that was shown to keep"):
            assert cell in shown
    assert "What the search tried" in page
    assert "Target and contract" not in render_html(sample())
    assert facts_of(record)["searches"][0]["delivered"] == 1


def test_a_drop_of_less_than_none_is_said_to_be_better_and_multiplications_by_their_name():
    found = row(1, 0.5, True)
    found["test"] |= {"bound": -0.1321}
    said = outcome(search([found], 1, cost="macs", runtime=None))
    assert said.startswith("50 % of the dense MACs are left")
    assert "accuracy gets better by at least 13.21 points with 95 % confidence" in said
