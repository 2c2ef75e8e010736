"""Is a space that can't be, or a folder that holds another search, one line of ``prunus search``, and is nothing lost?"""

import pytest

from prunus.cli.app import invoke
from prunus.search import run_search

SPACE = {"strategy.keep_fraction": {"low": 0.3, "high": 0.8}}
BARE = {"criterion": "taylor", "granularity": "channel"}
FIXED = (
    "error: search.space: {key} can't vary, since settings are judged by {why}: expected a key of data, model, train, examples, "
    "features, strategy, target or recovery; run two searches instead"
)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"search": {"space": {"strategy.keep_fractoin": [0.5]}}},
            ("error: search.space: unknown key 'strategy.keep_fractoin': did you mean 'strategy.keep_fraction'?"),
        ),
        (
            {"search": {"space": {"prune.amount": [0.5]}}},
            "error: search.space: unknown key 'prune.amount': expected a key of data, model, ",
        ),
        (
            {"search": {"space": {"contract.max_drop": [0.01, 0.05]}}},
            FIXED.format(key="contract.max_drop", why="contract"),
        ),
        (
            {"search": {"space": {"evaluation.metrics": [["accuracy"]]}}},
            FIXED.format(key="evaluation.metrics", why="evaluation"),
        ),
        (
            {"strategy": BARE, "contract": {"max_drop": 0.02}, "search": {"space": SPACE}},
            (
                "error: search.space.strategy.keep_fraction: the recipe with these settings: the recipe: contract and "
                "strategy.keep_fraction both say how much goes: give one of them"
            ),
        ),
        (
            {
                "strategy": BARE,
                "contract": {"max_drop": 0.05},
                "search": {"space": {"recovery.epochs": [1, 2]}, "contract": {"max_drop": 0.01}},
            },
            (
                "error: search.contract.max_drop: each setting is cut as deep as contract.max_drop lets it, so expected at least "
                "0.05 of accuracy, as there: got 0.01; lower contract.max_drop, or give one of the two"
            ),
        ),
    ],
)
def test_a_space_that_cannot_be_is_one_line_before_anything_is_read(small_recipe, tmp_path, capsys, sections, line):
    (tmp_path / "spoilt.parquet").write_bytes(b"no table")
    data = {"source": "spoilt.parquet", "target": "label"}
    assert invoke(["search", str(small_recipe(**{"data": data, **sections}))]) == 3
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_promises_that_one_setting_can_keep_both_are_taken(small_recipe, tmp_path, capsys):
    (tmp_path / "spoilt.parquet").write_bytes(b"no table")
    data, space = {"source": "spoilt.parquet", "target": "label"}, {"space": {"recovery.epochs": [1, 2]}}
    for more in (
        {"contract": {"max_drop": 0.01}, "search": {**space, "contract": {"max_drop": 0.05}}},
        {"contract": {"max_drop": 0.05}, "target": {"macs": 0.5}, "search": {**space, "contract": {"max_drop": 0.01}}},
    ):
        assert invoke(["search", str(small_recipe(data=data, strategy=BARE, **more)), "--overwrite"]) == 4
        assert "spoilt.parquet" in capsys.readouterr().err


def test_a_study_of_another_recipe_is_left_as_it_is(small_recipe, tmp_path, capsys, monkeypatch):
    found = {"state": "failed", "why": "not this time"}
    monkeypatch.setattr(run_search, "run_trial", lambda _: found)
    section = {"space": SPACE, "trials": 2}
    assert invoke(["search", str(small_recipe(search=section)), "--quiet"]) == 8
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"study.journal", "recipe.yaml"}
    capsys.readouterr()
    for more, line in (
        (
            ["--resume", "-o", "recovery.epochs=3"],
            "error: out holds the search of another recipe (recovery differs): choose ",
        ),
        (["--resume", "-o", "seeds=[4]"], "error: out holds the search of another recipe (seeds differs): choose "),
        ([], "error: out holds a search already: add --resume to go on with it, --overwrite to start anew"),
    ):
        assert invoke(["search", str(small_recipe(search=section)), *more]) == 7
        said = capsys.readouterr().err
        assert said.startswith(line)
        assert said.count("\n") == 1
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
