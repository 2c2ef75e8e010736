import pytest

from prunus.report.format import called, difference, finding, headline, is_share, size, times, value, with_interval
from prunus.report.record import Number
from report_samples import facts_of, plainest, regression, sample


def measured(value_, low, high):
    return Number(name="x", value=value_, low=low, high=high)


def test_shares_are_said_in_percent_and_their_differences_in_points():
    assert is_share("f1_weighted")
    assert not is_share("mae")
    assert with_interval("accuracy", measured(0.95, 0.9, 0.975)) == "95.0 % (90.0 % to 97.5 %)"
    assert difference("accuracy", measured(-0.012, -0.02, 0.004)) == "-1.2 points (-2.0 to +0.4)"
    assert difference("rmse", measured(0.1234, -0.2, 0.5)) == "+0.123 (-0.200 to +0.500)"


def test_nothing_has_no_sign():
    assert difference("accuracy", measured(-0.0001, -0.0004, 0.0001)) == "0.0 points (0.0 to 0.0)"


def test_what_is_missing_is_a_dash():
    assert difference("mae", Number(name="mae", value=None, low=None, high=None)) == "–"
    assert value("accuracy", None) == "–"


def test_a_ratio_near_one_keeps_the_digits_that_tell_which_side():
    assert [times(x) for x in (0.994, 1.004, 1.04, 1.5)] == ["0.99x", "1.00x", "1.04x", "1.5x"]


@pytest.mark.parametrize(("n_bytes", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB")])
def test_sizes_are_in_powers_of_a_thousand(n_bytes, said):
    assert size(n_bytes) == said


def test_metrics_have_names_that_one_says():
    assert [called(name) for name in ("precision_weighted", "rmse")] == ["weighted precision", "RMSE"]


def test_the_headline_says_what_was_saved_and_at_what_price():
    assert headline(sample()) == (
        "5.0x fewer MACs, 4.0x smaller on disk, 2.0x faster; test accuracy 94.0 % against 95.0 % dense: "
        "no measurable difference, -1.0 points (-2.2 to +0.3), 3 seeds"
    )


@pytest.mark.parametrize(
    ("low", "value_", "high", "said"),
    [(1.2, 1.5, 1.6, "1.5x faster"), (0.4, 0.5, 0.6, "NOT faster than the dense model: 0.50x (0.40x to 0.60x) in")],
)
def test_speed_is_in_the_headline_only_when_the_interval_tells(low, value_, high, said):
    latency = facts_of(sample())["timing"]["latency"]

    def of(**speedup):
        return headline(sample(timing={"latency": latency | {"speedup": {"name": "speedup", **speedup}}}))

    assert said in of(value=value_, low=low, high=high)
    unsure = of(value=value_, low=0.9 * min(low, 1), high=1.1 * max(high, 1))
    assert unsure.startswith("NOT faster than the dense model: ")
    assert "x faster" not in unsure
    assert "slower" not in unsure


def test_a_worse_model_is_called_worse_in_the_title():
    facts = facts_of(sample())
    rows = [facts["comparison"][0] | {"verdict": "worse"}]
    assert finding(sample(comparison=rows)) == "5.0x fewer MACs, 4.0x smaller on disk, but worse accuracy"


def test_the_title_says_nothing_that_did_not_happen():
    assert finding(plainest()) == "The same size, no measurable difference in accuracy"
    assert "smaller" not in headline(plainest())
    assert finding(regression()).endswith("no measurable difference in R²")


def test_a_run_that_only_removes_examples_says_so():
    record = facts_of(plainest())
    classes = [{"name": "cat", "before": 50, "removed": 7, "relabelled": 0}]
    made = sample(**{**record, "classes": classes})
    assert finding(made).startswith("7 training examples fewer")
    assert headline(made).startswith("7 training examples fewer")
