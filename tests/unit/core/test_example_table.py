import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.core.errors import PlanError
from prunus.core.files.example_table import ExampleTable, read_example_table, write_example_table


def table(n: int = 3) -> ExampleTable:
    columns = {
        "label": np.arange(n),
        "aum": np.linspace(0, 1, n, dtype=np.float32),
        "decision": np.array(["keep", "drop", None][:n], object),
        "mine": np.array(["a", None, "c"][:n], object),
    }
    return ExampleTable(tuple(f"row {i}" for i in range(n)), "f" * 64, columns, {"seed": 3})


@given(st.lists(st.text(max_size=8), unique=True, max_size=20), st.data())
def test_what_was_written_is_read_back(tmp_path_factory, ids, data):
    path = tmp_path_factory.mktemp("table") / "examples.parquet"
    scores = np.array(data.draw(st.lists(st.floats(width=32), min_size=len(ids), max_size=len(ids))), np.float32)
    write_example_table(ExampleTable(tuple(ids), "abc", {"score": scores}), path)
    back = read_example_table(path)
    assert back.ids == tuple(ids)
    np.testing.assert_array_equal(back.columns["score"], scores)


def test_texts_facts_and_unknown_columns_come_back_and_bytes_are_the_same(tmp_path):
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    write_example_table(table(), one)
    back = read_example_table(one)
    assert back.columns["mine"].tolist() == ["a", None, "c"]
    assert back.facts == {"seed": 3}
    write_example_table(back, other)
    assert one.read_bytes() == other.read_bytes()


def test_a_table_that_another_program_wrote_without_metadata_and_in_another_order_is_read(tmp_path):
    path = tmp_path / "examples.parquet"
    write_example_table(table(), path)
    arrow = pq.read_table(path).replace_schema_metadata(None)
    pq.write_table(arrow.take([2, 0, 1]).select(["decision", "id", "fingerprint"]), path)
    assert read_example_table(path).ids == ("row 2", "row 0", "row 1")


FAULTS = {
    "no id": (lambda t: t.drop_columns(["id"]), "expected a column 'id'"),
    "no fingerprint": (lambda t: t.drop_columns(["fingerprint"]), "expected a column 'fingerprint'"),
    "an id twice": (lambda t: pa.concat_tables([t, t.slice(1, 1)]), "stands in rows 2 and 4"),
    "another decision": (
        lambda t: t.set_column(t.schema.get_field_index("decision"), "decision", pa.array(["keep", "burn", None])),
        r"row 2\): expected keep, drop, relabel or nothing, got 'burn'",
    ),
    "two data sets": (
        lambda t: t.set_column(1, "fingerprint", pa.array(["a", "b", "a"])),
        "rows of two data sets",
    ),
    "an empty id": (lambda t: t.set_column(0, "id", pa.array(["a", None, "b"])), "row 2 has no id"),
    "a list": (lambda t: t.append_column("x", pa.array([[1], [2], [3]])), "column 'x' is list"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_cant_be_followed_is_refused_with_its_row(tmp_path, fault):
    change, message = FAULTS[fault]
    path = tmp_path / "examples.parquet"
    write_example_table(table(), path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(PlanError, match=message):
        read_example_table(path)


def test_no_file_and_no_parquet_are_refused(tmp_path):
    with pytest.raises(PlanError, match="no table of examples at"):
        read_example_table(tmp_path / "none.parquet")
    path = tmp_path / "text.parquet"
    path.write_text("id,decision\n")
    with pytest.raises(PlanError, match="not a readable Parquet file"):
        read_example_table(path)
