"""A resume trusts nothing that was damaged, and ends as a run that never stopped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from prunus.core.errors import DataError, OutputError
from prunus.core.events import silent
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import make_plan, run
from prunus.pipeline.jobs.run_folder import open_workspace
from prunus.ship import bundle_sha256

IRIS = {
    "data": {"source": "sklearn:iris"},
    "model": {"builder": "mlp", "args": {"width": 8, "depth": 1}},
    "train": {"epochs": 3},
    "examples": {"epochs": 2, "remove": [{"criterion": "el2n", "keep_fraction": 0.9}]},
    "strategy": {
        "criterion": "magnitude_l2",
        "granularity": "weight",
        "allocation": "sensitivity",
        "schedule": {"kind": "linear", "rounds": 2, "rewind_to": 1},
    },
    "recovery": {"epochs": 1},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8, "runtime": "torch"}},
    "seeds": [0],
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that never stopped, and one that was killed when it had kept everything that a resume reads."""
    folder = tmp_path_factory.mktemp("runs")
    run(make_recipe({**IRIS, "output": str(folder / "whole")}))

    def kill(event):
        if event.stage == "ship":
            raise Killed

    with pytest.raises(Killed):
        run(make_recipe({**IRIS, "output": str(folder / "killed")}), listener=kill)
    return folder


def kept(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder / "killed")) for p in (folder / "killed" / ".work").rglob("*") if p.is_file()
    )


def resumed(folder: Path) -> list[str]:
    """Resume in a copy of the killed run; return the notes."""
    recipe = make_recipe({**IRIS, "output": str(folder)})
    (folder / "recipe.yaml").unlink()
    with pytest.raises(OutputError, match="no run"):
        run(recipe)
    from prunus.pipeline.jobs.run_folder import recipe_text

    (folder / "recipe.yaml").write_text(recipe_text(recipe))
    notes = []
    run(recipe, resume=True, listener=lambda event: notes.append(event.message) if event.kind == "note" else None)
    return notes


def test_a_flipped_bit_or_a_cut_in_anything_that_is_kept_is_noticed_and_computed_again(stopped, tmp_path):
    whole = bundle_sha256(stopped / "whole" / "bundle"), (stopped / "whole" / "plan" / "plan.json").read_bytes()
    files = kept(stopped)
    kinds = {"/".join(Path(name).parts[1:]) for name in files}
    assert any("epoch 1" in name for name in kinds)
    assert any("evidence" in name for name in kinds)
    assert any(name.endswith("facts.json") for name in kinds)
    assert any(name.endswith("units.parquet") for name in kinds)
    assert any("losses of" in name for name in kinds)
    for number, name in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(stopped / "killed", copy)
        content = bytearray((copy / name).read_bytes())
        if number % 2:
            content[len(content) // 2] ^= 4
        else:
            del content[len(content) // 2 :]
        (copy / name).write_bytes(content)
        notes = resumed(copy)
        # What a kept decision was made from isn't read again.
        if "evidence" not in name and " _ loss" not in name:
            assert any("damaged and computed again" in note for note in notes), name
        plan = json.loads((copy / "plan" / "plan.json").read_bytes()), json.loads(whole[1])
        assert [tree["units_sha256"] for tree in plan] == [plan[1]["units_sha256"]] * 2, name
        assert (copy / "bundle" / "model.safetensors").read_bytes() == (
            stopped / "whole" / "bundle" / "model.safetensors"
        ).read_bytes(), name


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_failed_before_anything_was_done_blocks_nothing(tmp_path, resume):
    out = tmp_path / "out"
    with pytest.raises(DataError):
        run(make_recipe({**IRIS, "data": {"source": "sklearn:irs"}, "output": str(out)}))
    (out / ".work").mkdir(exist_ok=True)
    with open_workspace(
        make_recipe({**IRIS, "output": str(out)}), out, resume=resume, overwrite=False, listener=silent
    ):
        (out / ".work").mkdir(exist_ok=True)
        (out / ".work" / "train.safetensors").write_bytes(b"something that took an hour")
    with (
        pytest.raises(OutputError, match="holds a run already"),
        open_workspace(make_recipe({**IRIS, "output": str(out)}), out, resume=False, overwrite=False, listener=silent),
    ):
        pass


def test_leftovers_of_a_killed_run_don_t_block_its_folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".recipe.yaml.abcd_123.part").write_text("half")
    make_plan(make_recipe({**IRIS, "examples": None, "strategy": None, "output": str(folder)}))
    assert not list(folder.glob(".*.part"))


def test_no_link_in_a_run_s_folder_is_followed(tmp_path):
    recipe = make_recipe({**IRIS, "output": str(tmp_path / "out")})
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("all that I have")
    for name, target in ((".lock", "file"), ("log.jsonl", "file"), (".work", "")):
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / name).symlink_to(precious / target)
        with (
            pytest.raises(OutputError, match=r"link"),
            open_workspace(recipe, folder, resume=True, overwrite=False, listener=print) as workspace,
        ):
            workspace.note("stage", "something")
            os.fstat(-1)
        shutil.rmtree(folder)
    assert [p.name for p in precious.iterdir()] == ["file"]
    assert (precious / "file").read_text() == "all that I have"
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("")
    (folder / ".work").symlink_to(precious)
    (folder / "bundle").symlink_to(precious)
    (folder / ".work").unlink()
    with open_workspace(recipe, folder, resume=False, overwrite=True, listener=print):
        assert not (folder / "bundle").is_symlink()
    assert (precious / "file").exists()


def as_rank_0(monkeypatch, n_ranks: int) -> None:
    for key, value in {"RANK": "0", "WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize(
    ("begun", "here", "how"),
    [(2, 1, "torchrun on 2 processes"), (1, 2, "one process, without torchrun"), (2, 3, "torchrun on 2 processes")],
)
def test_a_run_that_was_begun_on_other_ranks_is_refused_in_one_line_and_stays(begun, here, how, tmp_path, monkeypatch):
    recipe, out = make_recipe({**IRIS, "output": str(tmp_path)}), tmp_path

    def opened(**asked):
        return open_workspace(recipe, out, **{"resume": True, "overwrite": False, "listener": silent, **asked})

    as_rank_0(monkeypatch, begun)
    with opened() as workspace:
        workspace.trained("seed 0 / train", torch.nn.Linear(2, 2), lambda _: {"of": "it"})
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    as_rank_0(monkeypatch, here)
    with (
        pytest.raises(OutputError, match=rf"begun on {begun} ranks?, got {here}: .* go on with {how}") as refused,
        opened(),
    ):
        pass
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    as_rank_0(monkeypatch, begun)
    with opened() as workspace:
        again = workspace.trained("seed 0 / train", torch.nn.Linear(2, 2), lambda _: {"of": "another"})
    assert again == {"of": "it"}
    as_rank_0(monkeypatch, here)
    with opened(overwrite=True, resume=False) as workspace:
        assert workspace.n_ranks() == here


def test_a_run_that_never_began_may_begin_on_other_ranks(tmp_path, monkeypatch):
    recipe = make_recipe({**IRIS, "output": str(tmp_path)})
    for n_ranks in (2, 1, 3):
        as_rank_0(monkeypatch, n_ranks)
        with open_workspace(recipe, tmp_path, resume=True, overwrite=False, listener=silent):
            pass
