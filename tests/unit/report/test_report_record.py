import json
import re

import pytest
from pydantic import ValidationError

from prunus.core.errors import PlanError
from prunus.report import load_record, record_json, save_record
from report_samples import facts_of, plainest, regression, sample


@pytest.mark.parametrize("make", [sample, regression, plainest])
def test_what_is_saved_is_what_is_loaded(make, tmp_path):
    record = make()
    save_record(record, tmp_path / "record.json")
    assert load_record(tmp_path / "record.json") == record
    assert record_json(load_record(tmp_path / "record.json")) == record_json(record)


def test_the_file_is_strict_json_with_the_schema_first():
    text = record_json(sample())
    facts = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert next(iter(facts.items())) == ("schema_version", 1)


def test_ratios_say_how_many_times_less():
    record = sample()
    assert record.ratio("macs") == 5.0
    assert record.ratio("size_bytes") == 4.0


def test_a_mean_is_over_the_seeds_and_nothing_where_no_seed_has_a_value():
    facts = facts_of(sample())
    rows = [row for row in facts["quality"] if (row["model"], row["split"]) == ("dense", "test")]
    for row, value in zip(rows, (0.9, 0.96, None), strict=True):
        row["metrics"][0]["value"] = value
    record = sample(quality=facts["quality"])
    assert record.mean("dense", "test", "accuracy") == pytest.approx(0.93)
    assert record.mean("dense", "test", "unheard of") is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"schema_version": 2}, "schema_version"),
        ({"comparison": []}, "at least one metric"),
        ({"timing": {"latency": {"runtime": "x"}}}, "batch_size"),
        ({"class_changes": [{"name": "cat", "value": float("nan"), "low": 0, "high": 0}]}, "finite"),
        (
            {
                "suspects": [
                    {"id": "1", "given": "a", "suggested": None, "score": 0.0, "action": "removed"}
                    | {"image": "https://example.org/x.png"}
                ]
            },
            "image",
        ),
    ],
)
def test_what_a_record_cannot_say_is_refused(change, where):
    with pytest.raises(ValidationError, match=where):
        sample(**change)


def test_a_missing_record_says_how_to_get_one(tmp_path):
    with pytest.raises(PlanError, match=r"no record at .*record\.json: .*--resume"):
        load_record(tmp_path / "record.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 9}', "\x00\xff"])
def test_a_damaged_record_is_one_line_that_names_the_file(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(PlanError, match=re.escape(str(path))) as error:
        load_record(path)
    assert "\n" not in str(error.value)
