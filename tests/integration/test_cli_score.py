"""prunus score: from a recipe, or a recording of one's own training, to a table of scores with errors."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
import yaml

from prunus import load_recipe, run
from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.example_table import read_example_table
from prunus.pipeline import score_examples, score_recordings
from prunus.recover.training.training_state import Checkpoint
from prunus.score import SCORES, Recording, recorded_names, scores_of
from prunus.tasks import Classification
from recording_stand_ins import CLASSES, N, made_logits, record


@pytest.fixture
def recipe(tmp_path):
    """A function that writes a small recipe and loads it."""

    def write(name="out", **sections):
        tree = {
            "data": {"source": "sklearn:digits"},
            "model": {"builder": "mlp", "args": {"width": 8}},
            "examples": {"epochs": 3},
            "seeds": [0, 1],
            "output": str(tmp_path / name),
            **sections,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return load_recipe(path)

    return write


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def own_training(folder, examples, *, n=None, epochs=4):
    """A recording that somebody made of their own training on the examples of a recipe."""
    targets = examples.targets
    logits = torch.randn(epochs, len(targets), 10, generator=torch.Generator().manual_seed(0))
    logits[:, torch.arange(len(targets)), targets] += 3
    return record(Recording(folder, n_examples=n or len(targets)), logits, targets, batch=64)


def prepared(config):
    from prunus.pipeline.handed import prepared_for

    return prepared_for(config, torch.device("cpu"))[0]


def test_the_command_writes_scores_with_errors_into_the_table(prunus, recipe, tmp_path):
    config = recipe()
    done = prunus("score", "out.yaml", "--json", "-q")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    table = read_example_table(tmp_path / "out" / "examples.parquet")
    data = prepared(config)
    assert table.ids == data.train.ids
    assert table.fingerprint == data.fingerprint
    assert (table.columns["label"] == np.array(data.train.class_names, object)[data.train.targets]).all()
    made = scores_of([Recording(tmp_path / "out" / "recording" / f"seed-{seed}") for seed in (0, 1)])
    for name in SCORES:
        np.testing.assert_array_equal(table.columns[name], made.values[name])
        np.testing.assert_array_equal(table.columns[f"{name}_error"], made.errors[name])
    assert (made.n_epochs == 6).all()
    assert [row["score"] for row in said["scores"]] == list(SCORES)
    assert said["n_trainings"] == 2
    assert said["degrees_of_freedom"] == 1
    lowest = next(row for row in said["scores"] if row["score"] == "aum")["lowest"]
    assert lowest[0]["value"] == pytest.approx(float(table.columns["aum"].min()))
    assert not (tmp_path / "out" / ".examples").exists()
    text = prunus("score", "out.yaml", "--overwrite", "-q").stdout
    assert "The lowest aum: look at them first" in text
    assert str(lowest[0]["id"]) in text


def test_a_killed_command_goes_on_and_ends_with_the_same_files(recipe, tmp_path, monkeypatch):
    whole = score_examples(recipe("whole"))
    seen = []
    own = Recording.watch

    def killed(self, epoch, batch, outputs):
        seen.append(epoch)
        if len(seen) == 40:
            raise KeyboardInterrupt
        own(self, epoch, batch, outputs)

    monkeypatch.setattr(Recording, "watch", killed)
    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, state, now=False: save(self, state, now=True))
    with pytest.raises(KeyboardInterrupt):
        score_examples(recipe("killed"))
    assert seen[-1] > 0, "not in the first epoch"
    assert not (tmp_path / "killed" / "examples.parquet").exists()
    with pytest.raises(OutputError, match="--resume"):
        score_examples(recipe("killed"))
    monkeypatch.setattr(Recording, "watch", own)
    resumed = score_examples(recipe("killed"), resume=True)
    assert resumed.summary == whole.summary
    one, other = (digests(tmp_path / name / "recording") for name in ("whole", "killed"))
    assert one == other
    tables = [read_example_table(found.table) for found in (whole, resumed)]
    for name, column in tables[0].columns.items():
        np.testing.assert_array_equal(column, tables[1].columns[name])


def test_scores_that_are_there_are_told_again_or_replaced_only_when_asked(recipe, tmp_path):
    first = score_examples(recipe(seeds=[0]))
    assert score_examples(recipe(seeds=[0]), resume=True).summary == first.summary
    with pytest.raises(OutputError, match="add --overwrite"):
        score_examples(recipe(seeds=[0]))
    with pytest.raises(OutputError, match="add --overwrite"):
        score_examples(recipe(seeds=[1]), resume=True)
    again = score_examples(recipe(seeds=[1]), overwrite=True)
    assert [path.name for path in again.recordings] == ["seed-1"]
    assert [path.name for path in (tmp_path / "out" / "recording").iterdir()] == ["seed-1"]


def test_decisions_of_others_stay_in_the_table(recipe, tmp_path):
    path = score_examples(recipe(seeds=[0])).table
    table = read_example_table(path)
    decision = np.array(["keep"] * (len(table) - 1) + ["drop"], object)
    from prunus.core.files.example_table import write_example_table

    write_example_table(table.with_columns({"decision": decision, "mine": np.arange(len(table))}), path)
    score_examples(recipe(seeds=[0]), overwrite=True)
    after = read_example_table(path)
    assert after.columns["decision"].tolist() == decision.tolist()
    assert after.columns["mine"].tolist() == list(range(len(table)))


def test_ones_own_training_is_scored_without_another(recipe, tmp_path):
    config = recipe()
    examples = prepared(config).train
    recording = own_training(tmp_path / "mine", examples)
    found = score_examples(config, recordings=[tmp_path / "mine"])
    assert not (tmp_path / "out" / "recording").exists()
    table = read_example_table(found.table)
    np.testing.assert_array_equal(table.columns["aum"], recording.scores().values["aum"])
    named = score_examples(recipe("named", examples={"recording": str(tmp_path / "mine")}))
    assert named.summary == found.summary
    assert found.summary["degrees_of_freedom"] == 2


def test_a_recording_of_all_rows_is_read_at_those_of_the_training(recipe, tmp_path):
    config = recipe()
    data = prepared(config)
    n = len(data.source.ids)
    logits = torch.randn(3, n, 10)
    record(Recording(tmp_path / "all", n_examples=n), logits, data.source.targets, batch=100)
    table = read_example_table(score_examples(config, recordings=[tmp_path / "all"]).table)
    wanted = Recording(tmp_path / "all").scores().values["entropy"][data.train.rows]
    np.testing.assert_array_equal(table.columns["entropy"], wanted)


def test_a_recording_of_other_data_is_refused(recipe, tmp_path):
    config = recipe()
    examples = prepared(config).train
    shuffled = examples.with_targets(examples.targets.roll(1))
    own_training(tmp_path / "shuffled", shuffled)
    with pytest.raises(DataError, match=r"was recorded with class number \d, and the data say \d"):
        score_examples(config, recordings=[tmp_path / "shuffled"])
    record(Recording(tmp_path / "short", n_examples=N), *made_logits())
    with pytest.raises(DataError, match=r"records 60 examples: expected the \d+ for training, or all 1797"):
        score_examples(config, recordings=[tmp_path / "short"], overwrite=True)
    record(Recording(tmp_path / "values", n_examples=len(examples), task="regression"), torch.zeros(1, len(examples)),
           torch.zeros(len(examples)), batch=100)  # fmt: skip
    with pytest.raises(DataError, match="is of the task regression: expected classification"):
        score_examples(config, recordings=[tmp_path / "values"], overwrite=True)


def test_a_recording_alone_is_scored_without_a_recipe(prunus, tmp_path):
    task = Classification(tuple("abcdefghij"))
    record(Recording(tmp_path / "mine", n_examples=N, task=task), *made_logits()).close()
    done = prunus("score", "--recording", "mine", "--json", "-q")
    assert done.returncode == 0, done.stderr
    table = read_example_table(tmp_path / "mine" / "examples.parquet")
    assert table.ids == tuple(map(str, range(N)))
    assert table.columns["label"].tolist() == ["abcdefghij"[label] for label in made_logits()[1].tolist()]
    with pytest.raises(OutputError, match="is there already"):
        score_recordings([tmp_path / "mine"])
    again = score_recordings([tmp_path / "mine"], overwrite=True)
    assert json.loads(done.stdout)["scores"] == again.summary["scores"]
    assert Recording(tmp_path / "mine").scores().n_epochs.min() == 5, "the table beside the epochs is in nobody's way"


def test_bad_asks_are_one_line(prunus, tmp_path, recipe):
    recipe()
    for arguments, code, said in [
        ((), 2, "give a RECIPE"),
        (("--recording", "nowhere"), 3, "there is no recording in nowhere"),
        (("out.yaml", "--recording", "nowhere", "-q"), 3, "there is no recording in nowhere"),
        (("--recording", "nowhere", "--resume"), 2, "are for a RECIPE"),
        (("none.yaml",), 3, "none.yaml"),
    ]:
        done = prunus("score", *arguments)
        assert done.returncode == code, done.stderr
        assert said in " ".join(done.stderr.split()), done.stderr


def test_a_run_may_decide_by_a_recording_instead_of_a_training(recipe, tmp_path):
    examples = prepared(recipe()).train
    own_training(tmp_path / "mine", examples)
    remove = [{"criterion": "aum", "keep_fraction": 0.9, "class_floor": 0.0}]
    config = recipe(
        "cut",
        examples={"recording": str(tmp_path / "mine"), "remove": remove, "estimate": False},
        train={"epochs": 1},
        recovery={"epochs": 1},
        seeds=[0],
        evaluation={"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch"}},
    )
    told = []
    run(config, listener=lambda event: told.append(event.stage))
    plan = read_example_table(tmp_path / "cut" / "plan" / "examples.parquet")
    aum = Recording(tmp_path / "mine").scores().values["aum"]
    dropped = plan.columns["decision"] == "drop"
    assert dropped.sum() == len(aum) - round(0.9 * len(aum))
    assert aum[dropped].max() <= aum[~dropped].min()
    stages = {stage for stage in told if "judge examples" in stage}
    assert stages == {"seed 0 / judge examples"}


def test_what_a_recording_can_not_tell_is_refused_before_anything_is_trained(recipe, tmp_path):
    examples = prepared(recipe()).train
    own_training(tmp_path / "mine", examples)
    for more in ({"relabel": {}}, {"duplicates": {"space": "embedding"}},
                 {"remove": [{"criterion": "prototype", "keep_fraction": 0.5}]}):  # fmt: skip
        config = recipe("cut", examples={"recording": str(tmp_path / "mine"), **more})
        with pytest.raises(RecipeError, match="holds no embedding"):
            run(config, overwrite=True)


def test_evidence_of_many_classes_has_probabilities_where_they_are_read(tmp_path):
    from prunus.pipeline.stages.recorded_training import recorded_evidence

    class Seen:
        task = Classification(n_classes=80)
        known_targets, ids = None, ()

        def __init__(self, n):
            self.rows, self.source = torch.arange(n), self

        def __len__(self):
            return len(self.rows)

    logits, labels = made_logits(classes=80)
    record(Recording(tmp_path / "many", n_examples=N), logits, labels)
    found = recorded_evidence(tmp_path / "many", Seen(N))
    assert set(found) == set(recorded_names(Seen.task))
    assert found["probability"].shape == (N, 80)
    assert CLASSES < 80
