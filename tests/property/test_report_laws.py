"""The laws of telling: whatever a record holds, the page is one page of text, and numbers are said with the right sign."""

import html

from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.text import plain
from prunus.report import png_data_uri, record_json
from prunus.report.format import amount, difference, size, times
from prunus.report.page.page_marks import escape
from prunus.report.record import Number, RunRecord
from report_samples import sample

COMMON = settings(deadline=None, derandomize=True, max_examples=100)
NUMBERS = st.floats(-1, 1)


@COMMON
@given(st.text())
def test_escaped_text_has_no_markup_and_reads_as_what_it_shows(text):
    said = escape(text)
    assert not set(said) & set("<>\"'")
    shown = "\n".join(map(plain, text.split("\n")))
    assert html.unescape(said).replace("−", "-") == shown.replace("−", "-")


@COMMON
@given(st.lists(NUMBERS, min_size=3, max_size=3).map(sorted))
def test_a_difference_says_its_sign_and_never_that_of_zero(numbers):
    low, value, high = numbers
    said = difference("accuracy", Number(name="accuracy", value=value, low=low, high=high))
    assert "-0.0 " not in said
    assert "+0.0 " not in said
    assert said.startswith("-") == (round(100 * value, 1) < 0)
    assert said.startswith("+") == (round(100 * value, 1) > 0)


@COMMON
@given(st.floats(0.01, 1e4))
def test_a_ratio_is_said_to_within_its_last_digit(ratio):
    assert abs(float(times(ratio).removesuffix("x")) / ratio - 1) <= 0.05 or ratio < 0.1


@COMMON
@given(st.integers(0, 10**15))
def test_counts_and_sizes_are_said_to_three_digits(number):
    factor = {"": 1, "M": 1e6, "G": 1e9, "T": 1e12, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    for said in (amount(number), size(number)):
        digits, _, unit = said.partition(" ")
        found = float(digits.replace("\u2009", "")) * factor[unit]
        assert abs(found - number) <= 0.005 * number


@COMMON
@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_any_text_goes_through_the_record(note, name, versions):
    safe = "".join(c for c in note + name if not 0xD800 <= ord(c) <= 0xDFFF)
    record = sample(notes=[safe], versions=dict.fromkeys(versions, safe))
    assert RunRecord.model_validate_json(record_json(record)) == record


@COMMON
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=4))
def test_scaling_and_shifting_pixels_gives_the_same_picture(pixels):
    assert png_data_uri(pixels) == png_data_uri([[4.0 * x for x in row] for row in pixels])
