"""Does the table say by how much the selection differs, and the sentence what the numbers say?"""

import io

import pytest
from rich.console import Console

from prunus.report import GateFacts, print_gate, render_html
from prunus.report.gate_text import gate_line
from report_samples import sample


def gate(recommended="full_short", smaller="random", verdicts=("no measurable difference",) * 3):
    pairs = (("selection", "random"), ("selection", "full_short"), ("random", "full_short"))
    return GateFacts.model_validate(
        {
            "metric": "accuracy",
            "higher_is_better": True,
            "method": "paired",
            "arms": [
                {"name": name, "mean": mean, "deviation": 0.01, "values": [mean, mean]}
                for name, mean in (("selection", 0.81), ("random", 0.8), ("full_short", 0.805))
            ],
            "comparisons": [
                {"one": one, "other": other, "verdict": verdict, "value": 0.01, "low": -0.02, "high": 0.04}
                for (one, other), verdict in zip(pairs, verdicts, strict=True)
            ],
            "recommended": recommended,
            "smaller": smaller,
            "n_train": 1000,
            "n_kept": [300, 300],
            "n_steps": [120, 120],
            "n_validation": 200,
            "seeds": [0, 1],
        }
    )


def printed(facts):
    into = io.StringIO()
    print_gate(facts, Console(file=into, width=132))
    return into.getvalue()


def test_the_table_has_the_ways_their_sizes_and_the_differences_with_intervals():
    text = printed(gate())
    assert "200 validation examples, mean over 2 seeds" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "300" in lines["the selection"]
    assert "81.0 %" in lines["the selection"]
    assert "+1.0 points (-2.0 to +4.0) no measurable difference" in lines["as many by chance"]
    assert "1\u2009000" in lines["all, as many steps"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            gate(),
            "keep all examples and train for as many steps; the selection isn't measurably better. Where fewer must be kept: ch",
        ),
        (
            gate(verdicts=("better", "worse", "worse"), smaller="selection"),
            "the selection does worse. Where fewer must be kept: the sel",
        ),
        (
            gate("selection", "selection", ("better", "better", "worse")),
            "recommended: the selection; it is measurably better",
        ),
        (gate("random", "random", ("worse", "worse", "better")), "recommended: as many by chance"),
    ],
)
def test_the_sentence_says_what_to_do_and_why(facts, said):
    assert said in gate_line(facts)


def test_summary_and_page_show_it_where_it_was_asked():
    assert "Does the selection pay?" not in render_html(sample())
    page = render_html(sample(gate=gate().model_dump()))
    assert "Does the selection pay?" in page
    assert "as many by chance" in page
