"""The commands about examples share one table, and no run takes it away."""

from pathlib import Path

import numpy as np
import pytest

from prunus.core.errors import OutputError, PlanError
from prunus.core.events import silent
from prunus.core.files.example_table import ExampleTable, read_example_table, write_example_table
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run
from prunus.pipeline.jobs.examples_folder import check_undecided, open_examples, table_path, write_columns
from recipe_samples import IRIS


def table(ids="abc", fingerprint="f" * 64, **columns):
    return ExampleTable(tuple(ids), fingerprint, {name: np.asarray(column) for name, column in columns.items()})


def test_columns_of_others_stay_and_follow_their_examples(tmp_path):
    path = tmp_path / "examples.parquet"
    write_columns(path, table("cab", aum=[3.0, 1.0, 2.0], mine=np.array(["z", "x", None], object)))
    write_columns(path, table("abc", loss=[0.1, 0.2, 0.3], aum=[1.5, 2.5, 3.5]))
    back = read_example_table(path)
    assert back.ids == ("a", "b", "c")
    assert {name: column.tolist() for name, column in back.columns.items()} == {
        "aum": [1.5, 2.5, 3.5],
        "mine": ["x", None, "z"],
        "loss": [0.1, 0.2, 0.3],
    }


@pytest.mark.parametrize("other", [{"fingerprint": "0" * 64}, {"ids": "abd"}])
def test_a_table_of_other_data_is_replaced_only_when_asked(tmp_path, other):
    path = tmp_path / "examples.parquet"
    write_example_table(table(aum=[1.0, 2.0, 3.0], **other), path)
    with pytest.raises(OutputError, match=r"is of other data .*--overwrite"):
        write_columns(path, table(loss=[1.0, 2.0, 3.0]))
    write_columns(path, table(loss=[1.0, 2.0, 3.0]), overwrite=True)
    assert list(read_example_table(path).columns) == ["loss"]


def test_decisions_that_may_be_by_hand_are_replaced_only_when_asked(tmp_path):
    path = tmp_path / "examples.parquet"
    check_undecided(path, overwrite=False)
    write_example_table(table(decision=np.array([None, None, None], object)), path)
    check_undecided(path, overwrite=False)
    write_example_table(table(decision=np.array(["drop", None, "keep"], object)), path)
    with pytest.raises(OutputError, match="holds 2 decisions already"):
        check_undecided(path, overwrite=False)
    check_undecided(path, overwrite=True)


def test_what_is_no_table_is_never_replaced(tmp_path):
    path = tmp_path / "examples.parquet"
    path.write_bytes(b"my own")
    for overwrite in (False, True):
        with pytest.raises(PlanError):
            write_columns(path, table(), overwrite=overwrite)
    assert path.read_bytes() == b"my own"


def test_a_run_goes_into_the_folder_of_a_table_and_leaves_the_table(tmp_path):
    recipe = make_recipe({**IRIS, "output": str(tmp_path / "out")})
    write_columns(table_path(recipe), table(decision=np.array(["drop", None, "keep"], object)))
    before = table_path(recipe).read_bytes()
    for overwrite in (False, True):
        run(recipe, overwrite=overwrite)
        assert table_path(recipe).read_bytes() == before
    with open_examples(recipe, resume=False, overwrite=False, listener=silent):
        pass
    assert (tmp_path / "out" / "record.json").exists()


def test_what_a_killed_command_kept_waits_for_a_resume(tmp_path):
    recipe = make_recipe({**IRIS, "output": str(tmp_path / "out")})
    keys = {"resume": False, "overwrite": False, "listener": silent}
    with pytest.raises(KeyboardInterrupt), open_examples(recipe, **keys) as workspace:
        workspace.remembered("half", lambda: {"n": 1})
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match="--resume"), open_examples(recipe, **keys):
        pass
    with open_examples(recipe, **{**keys, "resume": True}) as workspace:
        assert workspace.remembered("half", lambda: {"n": 2}) == {"n": 1}
    assert not (Path(recipe.output) / ".examples").exists()
