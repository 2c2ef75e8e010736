"""What was fitted is carried out as scikit-learn's transformers do, reads back from JSON, and has limits."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from prunus.data.columns.fit import MOST_CATEGORIES, SHARED, TableFacts
from prunus.data.columns.fitted import MOST_FEATURES, CategoryColumn, Columns, DateColumn, NumberColumn
from tests_support import fit_columns

sklearn = pytest.importorskip("sklearn")
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer  # noqa: E402

NUMBERS = st.lists(
    st.one_of(st.just(math.nan), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=40
)
WORDS = tuple(sorted(f"w{i}" for i in range(8)))


def fit(values, kind="number", **facts):
    return fit_columns(np.asarray(values, dtype=np.float64)[:, None], TableFacts({"a": kind}, **facts))


def encode(columns, values, words=()):
    return columns.encode(np.asarray(values, dtype=np.float64)[:, None], {"a": words}, wide=True)


@settings(max_examples=80, deadline=None)
@given(NUMBERS, NUMBERS)
def test_numbers_are_imputed_and_flagged_as_scikit_learn_does(train, other):
    rows = np.asarray(train)[:, None]
    if np.isnan(rows).all():
        assert encode(fit(train), [math.nan]).tolist() == [[0.0, 1.0]]
        return
    theirs = SimpleImputer(strategy="median", add_indicator=True).fit(rows)
    assert np.array_equal(encode(fit(train), other), theirs.transform(np.asarray(other)[:, None]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 7), min_size=1, max_size=30))
def test_categories_and_unseen_ones_are_encoded_as_scikit_learn_does(train, other):
    ours = encode(fit(train, "category", words={"a": WORDS}), other, WORDS)
    theirs = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit([[WORDS[code]] for code in train])
    assert np.array_equal(ours, theirs.transform([[WORDS[code]] for code in other]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0, 9.0]), min_size=2, max_size=99), NUMBERS)
def test_quantiles_are_those_of_scikit_learn(train, other):
    rows = np.asarray(train)[:, None]
    columns = fit(train, spread=frozenset("a"))
    other = [value for value in other if not math.isnan(value)]
    if len(set(train)) == 1:
        assert columns.columns[0].quantiles == ()
        return
    theirs = QuantileTransformer(n_quantiles=len(train), subsample=None).fit(rows)
    assert np.allclose(columns.columns[0].quantiles, theirs.quantiles_[:, 0])
    same = NumberColumn(name="a", kind="number", fill=0.0, quantiles=tuple(theirs.quantiles_[:, 0].tolist()))
    got = encode(Columns(columns=(same,)), [*train, *other])[:, 0]
    assert np.allclose(got, theirs.transform(np.asarray([*train, *other])[:, None])[:, 0], atol=1e-12)


def test_many_categories_share_features_and_every_word_has_its_place_whoever_asks():
    words = tuple(sorted(f"c{i:04d}" for i in range(3000)))
    draw = np.random.default_rng(0)
    codes = np.minimum(draw.geometric(0.02, 5000), 2999)
    columns = fit(codes, "category", words={"a": words})
    (column,) = columns.columns
    counts = np.bincount(codes, minlength=3000)
    assert len(column.categories) == MOST_CATEGORIES
    least = min(counts[words.index(word)] for word in column.categories)
    assert all(counts[words.index(w)] <= least for w in words if w not in column.categories)
    assert column.others == SHARED
    found = encode(columns, np.arange(3000), words)
    assert (found.sum(axis=1) == 1).all(), "each word, also one that training never saw, has exactly one feature"
    again = encode(Columns.model_validate_json(columns.model_dump_json()), [1, 0], (words[5], words[9]))
    assert np.array_equal(again, found[[9, 5]]), "by the word, not by its number"
    assert (found[:, MOST_CATEGORIES:].sum(axis=0) > 3000 / SHARED / 3).all(), "the hash spreads"


def test_a_few_more_categories_than_have_features_share_one():
    words = tuple(sorted(f"c{i:03d}" for i in range(60)))
    codes = [*list(range(60)) * 2, *range(50)]
    (column,) = fit(codes, "category", words={"a": words}).columns
    assert column.others == 1
    assert column.feature_names[-1] == "a is another"


def test_dates_become_days_and_places_on_circles():
    noon = 19_723 * 86_400 + 43_200  # Monday, 2024-01-01, 12:00
    columns = fit([noon, noon + 86_400, noon + 2 * 86_400, math.nan], "date")
    assert columns.feature_names == (
        *("a days", "a year sin", "a year cos", "a week sin", "a week cos", "a day sin", "a day cos"),
        "a is missing",
    )
    days, year_sin, year_cos, week_sin, week_cos, day_sin, day_cos, missing = encode(columns, [noon])[0]
    assert days == -1, "from the middle of training"
    assert math.atan2(year_sin, year_cos) == pytest.approx(2 * math.pi * 0.5 / 366)
    assert math.atan2(week_sin, week_cos) == pytest.approx(2 * math.pi * 0.5 / 7), "Monday, noon"
    assert (day_sin, day_cos, missing) == (pytest.approx(0, abs=1e-9), pytest.approx(-1), 0)
    assert encode(columns, [math.nan])[0, -1] == 1
    assert not any("day sin" in name for name in fit([0.0, 86_400.0], "date").feature_names), "no times, no circle"
    assert fit([3600.0, 7200.0], "time").feature_names == ("a day sin", "a day cos")


@settings(max_examples=30, deadline=None)
@example([math.nan, 0.0, 2.225073858507e-311])
@given(NUMBERS)
def test_what_was_fitted_reads_back_from_json_and_encodes_the_same(values):
    columns = fit(values, spread=frozenset("a"))
    again = Columns.model_validate(json.loads(columns.model_dump_json()))
    assert again == columns
    assert np.array_equal(encode(again, values), encode(columns, values))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"kind": "number", "fill": math.nan}, "fill"),
        ({"kind": "number", "fill": 1e301}, "fill"),
        ({"kind": "number", "fill": "0"}, "fill"),
        ({"kind": "number", "fill": 0.0, "quantiles": [2.0, 1.0]}, "ascend"),
        ({"kind": "number", "fill": 0.0, "quantiles": [0.0] * 1001}, "1000"),
        ({"kind": "number", "fill": 0.0, "code": "x"}, "code"),
        ({"kind": "category", "categories": ["a", "a"]}, "differ"),
        ({"kind": "category", "categories": ["a"], "others": 10**9}, "1024"),
        ({"kind": "category", "categories": ["x" * 10_001]}, "10000"),
        ({"kind": "category", "categories": [f"{i}" for i in range(1001)]}, "1000"),
        ({"kind": "date", "fill": 1e18, "parts": ["days"]}, "fill"),
        ({"kind": "date", "fill": 0.0, "parts": ["days"] * 9}, "4"),
        ({"kind": "date", "fill": 0.0, "parts": ["century"]}, "parts"),
        ({"kind": "magic"}, "magic"),
    ],
)
def test_what_no_fit_gives_is_refused(column, said):
    with pytest.raises(ValidationError, match=said):
        Columns.model_validate({"columns": [{"name": "a", **column}]})


def test_columns_that_become_more_features_than_any_are_refused_before_they_are_named():
    many = [CategoryColumn(name=f"{'n' * 900}{i}", kind="category", others=1024) for i in range(MOST_FEATURES // 1000)]
    with pytest.raises(ValidationError, match="expected at most 100000"):
        Columns(columns=tuple(many))
    with pytest.raises(ValidationError, match="two features would be called 'a days'"):
        Columns(
            columns=(
                DateColumn(name="a", kind="date", fill=0.0, parts=("days",)),
                NumberColumn(name="a days", kind="number", fill=0.0),
            )
        )
