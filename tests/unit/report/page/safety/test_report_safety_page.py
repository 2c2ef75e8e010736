"""What was found of a model's safety is shown on the page and on the terminal, all of it, and nothing in it is markup."""

from io import StringIO

import pytest
from rich.console import Console

from prunus.core.errors import PlanError
from prunus.report import SafetyFacts, load_safety, print_safety, render_html, render_safety
from report_samples import sample

EVIL = "<script>alert(1)</script>[red]x[/]\x1b[31m"


def number(value, low, high, name="accuracy", *, higher=True):
    return {"name": name, "value": value, "low": low, "high": high, "unit": "share", "higher_is_better": higher}


def facts(name="cat"):
    change = number(-0.1, -0.18, -0.03)
    part = {"name": name, "n": 120, "dense": 0.95, "pruned": 0.85, "change": change, "p_value": 0.004}
    part |= {"verdict": "worse", "n_lost": 14, "n_gained": 2}
    flip = {"id": name, "kind": "right to wrong", "label": name, "dense": f"{name} 90 %", "pruned": "dog 55 %"}
    both = {"dense": number(0.05, 0.03, 0.07), "pruned": number(0.09, 0.06, 0.12)}
    shares = {key: number(0.5, 0.4, 0.6) for key in ("accuracy", "under_pgd", "under_all")}
    step = {"attack": "pgd", "tried": 90, "broken": 40, "standing": 50}
    return SafetyFacts.model_validate(
        {
            "bundle": name,
            "dense": "dense",
            "hashes": {"bundle": "a" * 64, "dense": "b" * 64},
            "data": name,
            "task": "classification",
            "versions": {"prunus": "1"},
            "seed": 0,
            "harm": {
                "split": "test",
                "n": 240,
                "seed": 0,
                "confidence": 0.95,
                "classes": {"by": "class", "metric": "recall", "method": "exact", "changes": [part]},
                "groups": [{"by": name, "metric": "accuracy", "method": "exact", "changes": [part]}],
                "flips": {
                    "n": 240,
                    "n_by_kind": {"right to wrong": 14},
                    "measure": "nats",
                    "shown": [{**flip, "worse": 1.5}],
                },
                "calibration": {
                    "n": 240,
                    "n_examples": 240,
                    "fitted_on": "validation",
                    "n_fitted": 100,
                    "temperatures": {"dense": 1.2, "pruned": 0.8},
                    "rows": [{"measure": "ece", "scaled": True, **both, "difference": number(0.04, 0.01, 0.07)}],
                },
                "notes": [name],
            },
            "robustness": {
                "split": "test",
                "confidence": 0.95,
                "corruptions": {
                    "kind": "image",
                    "metric": "accuracy",
                    "n": 240,
                    "rows": [
                        {"name": "blur", "severity": k, "values": both, "difference": change, "excess": change}
                        for k in range(6)
                    ],
                    "says": {"blur": name},
                    "notes": [name],
                },
                "attacks": [
                    {
                        "norm": "linf",
                        "reach": 0.031,
                        "unit": "of the range",
                        "n": 100,
                        "effort": {"steps": 50},
                        "attacks": ["PGD", "Square"],
                        "models": {model: {**shares, "steps": [step]} for model in ("dense", "pruned")},
                        "difference": change,
                    }
                ],
                "trigger": {
                    "trigger": name,
                    "target": name,
                    "n": 100,
                    "models": {"pruned": {key: number(0.9, 0.8, 0.95) for key in ("success", "anyway", "accuracy")}},
                    "difference": None,
                },
                "notes": [name],
            },
            "privacy": {
                "n_members": 300,
                "n_outsiders": 240,
                "n_shadows": 8,
                "confidence": 0.95,
                "rows": [
                    {"attack": "lira", "measure": measure, "values": both, "difference": change}
                    for measure in ("auc", "tpr_at_0.01")
                ],
                "notes": [name],
            },
        }
    )


def printed(found):
    text = StringIO()
    print_safety(found, Console(file=text, width=160))
    return text.getvalue()


@pytest.mark.parametrize("made", [lambda found: render_html(sample(), found), render_safety])
def test_the_page_has_every_part_and_no_markup_from_the_data(made):
    page = made(facts(EVIL))
    for said in (
        "Whom it harms",
        "What it withstands",
        "What it tells of its training",
        "right under all",
        "Every severity",
    ):
        assert said in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page


def test_the_terminal_says_what_was_found_and_obeys_nothing_in_it():
    said = printed(facts(EVIL))
    assert "\x1b" not in said
    assert "[red]x[/]" in said
    said = printed(facts())
    for words in (
        "recall is measurably worse in 1 of 1: cat",
        "-10.0 points (-18.0 to -3.0)",
        "14/2",
        "decisions that flip: 14 of 240 examples (5.8 %)",
        "temperatures: dense 1.200, pruned 0.800; fitted on 100 validation examples",
        "1 of 1 corruptions cost the pruned model measurably more",
        "measured, not removed",
        "by the likelihood ratio: area under the curve",
        "8 shadow models",
    ):
        assert words in said, words


def test_a_page_without_it_is_as_before():
    page = render_html(sample())
    assert "What it withstands" not in page
    assert "Whom it harms" not in page


def test_what_was_found_reads_back_and_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "safety.json"
    path.write_text(facts().model_dump_json())
    assert load_safety(path) == facts()
    for text in ("{", '{"bundle": 1}', "[]", '{"a": NaN}'):
        path.write_text(text)
        with pytest.raises(PlanError, match=r"safety\.json.*measure anew") as caught:
            load_safety(path)
        assert "\n" not in str(caught.value)
