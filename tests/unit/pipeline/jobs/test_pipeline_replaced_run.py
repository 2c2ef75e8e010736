"""A run that is to be replaced is there, byte for byte, until the new one has read its data; and never mixed with it."""

from __future__ import annotations

import pytest

from prunus.core.errors import DataError, OutputError
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run
from prunus.pipeline.jobs.replaced_run import ASIDE, forget_aside, put_back, set_aside
from prunus.pipeline.jobs.run_folder import OURS, open_workspace

OLD = {
    "recipe.yaml": "old",
    "record.json": "{}",
    "report.html": "old page",
    "bundle/manifest.json": "{}",
    "log.jsonl": "old",
}
NEW = {"recipe.yaml": "new", "log.jsonl": "new", ".work/train.safetensors": "new"}


def lay(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def there(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


class Killed(BaseException):
    """Ends a process here."""


def stops_after(n, monkeypatch):
    """Let the n-th next rename or removal be the last that is done."""
    import prunus.pipeline.jobs.replaced_run as module

    left = [n]
    rename, drop = module.Path.rename, module.remove

    def counted(act):
        def do(*given):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return act(*given)

        return do

    monkeypatch.setattr(module.Path, "rename", counted(rename))
    monkeypatch.setattr(module, "remove", counted(drop))


@pytest.mark.parametrize("n", range(len(OLD) + 1))
def test_a_kill_while_a_run_goes_aside_loses_nothing(tmp_path, monkeypatch, n):
    lay(tmp_path, OLD)
    with monkeypatch.context() as patch:
        stops_after(n, patch)
        try:
            set_aside(tmp_path, OURS)
        except Killed:
            pass
        else:
            assert n == len(OLD)
    put_back(tmp_path, OURS)
    assert there(tmp_path) == OLD
    assert not (tmp_path / ASIDE).exists()


@pytest.mark.parametrize("n", range(len(OURS) + len(OLD) + 1))
def test_a_kill_while_it_comes_back_loses_nothing_either_and_nothing_of_the_new_one_stays(tmp_path, monkeypatch, n):
    lay(tmp_path, OLD)
    set_aside(tmp_path, OURS)
    assert there(tmp_path) == {f"{ASIDE}/{name}": text for name, text in OLD.items()}
    lay(tmp_path, NEW)
    with monkeypatch.context() as patch:
        stops_after(n, patch)
        with pytest.raises(Killed):
            put_back(tmp_path, OURS)
    put_back(tmp_path, OURS)
    assert there(tmp_path) == OLD


def test_what_lies_aside_goes_at_one_stroke_once_the_new_run_has_begun(tmp_path):
    lay(tmp_path, OLD)
    set_aside(tmp_path, OURS)
    lay(tmp_path, NEW)
    forget_aside(tmp_path)
    forget_aside(tmp_path)
    put_back(tmp_path, OURS)
    assert there(tmp_path) == NEW


def test_a_link_where_it_should_lie_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ASIDE).symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is a link"):
        put_back(tmp_path / "out", OURS)


def test_a_wrong_recipe_with_overwrite_leaves_the_finished_run_as_it_was(tmp_path):
    out = tmp_path / "out"
    good = {
        "output": str(out), "seeds": [0], "data": {"source": "sklearn:iris"}, "train": {"epochs": 1}, "recovery": {"epochs": 1},
        "model": {"builder": "mlp", "args": {"width": 8, "depth": 1}}, "strategy": {"keep_fraction": 0.5},
        "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8, "runtime": "torch"}},
    }  # fmt: skip
    run(make_recipe(good))
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(DataError):
        run(make_recipe({**good, "data": {"source": "sklearn:irs"}}), overwrite=True)
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    recipe = make_recipe({**good, "train": {"epochs": 2}})
    with open_workspace(recipe, out, resume=False, overwrite=True, listener=lambda event: None) as workspace:
        with workspace.stage("load data"):
            assert (out / ASIDE / "record.json").exists()
        with workspace.stage("train"):
            assert not (out / ASIDE).exists()
    assert not (out / "record.json").exists()
