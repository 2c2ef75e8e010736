"""A recording says what the training said, whoever wrote it and whatever happened to them."""

import json
import signal

import numpy as np
import pytest
import torch

from patience import PATIENCE_S
from prunus.core.batch import Batch
from prunus.core.errors import DataError, NotFiniteError, OutputError, RecipeError, RunError, ShapeError
from prunus.score import ExampleRecorder, Recording, example_criteria, recorded_names
from prunus.score.examples.recording import epoch_files
from prunus.score.examples.recording import recording as recording_module
from prunus.score.examples.recording.recording import _Pending
from prunus.tasks import Classification, Detection, MultiLabel, Regression, Segmentation
from recording_stand_ins import BATCH, CLASSES, EPOCHS, N, in_a_process, made_logits, record

TASK = Classification(n_classes=CLASSES)


def in_memory(logits, targets, task):
    recorder = ExampleRecorder(len(targets), task)
    for epoch, outputs in enumerate(logits):
        recorder(epoch, Batch(torch.arange(len(targets)), None, targets), outputs)
    return recorder.tensors()


def same(one, other):
    assert one.values.keys() == other.values.keys()
    for name in one.values:
        np.testing.assert_array_equal(one.values[name], other.values[name])
        np.testing.assert_array_equal(one.errors[name], other.errors[name])


def records(folder, epoch=0, part=""):
    return folder / f"epoch-{epoch:06d}{part}.records"


@pytest.fixture
def whole(tmp_path):
    """A recording of a whole training."""
    return record(Recording(tmp_path / "whole", n_examples=N), *made_logits())


def test_a_recording_gives_the_evidence_of_a_recorder_in_memory(whole):
    wanted = in_memory(*made_logits(), TASK)
    found = whole.tensors()
    assert list(found) == list(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-3, atol=2e-3)
    assert torch.equal(found["forgotten"], wanted["forgotten"])


def test_ten_classes_take_24_bytes_for_an_example_and_epoch(whole, tmp_path):
    assert records(tmp_path / "whole").stat().st_size == 24 * N
    assert whole.record_bytes == 2 * CLASSES + 4


def test_scores_are_those_of_the_criteria(whole):
    evidence, scores = whole.tensors(), whole.scores()
    assert set(scores.values) == {
        *("el2n", "aum", "loss", "loss_deviation", "forgetting", "confidence", "variability", "entropy", "margin")
    }
    for name, values in scores.values.items():
        np.testing.assert_allclose(values, example_criteria[name](evidence).numpy(), rtol=1e-6, atol=1e-7)
    assert (scores.labels == made_logits()[1].numpy()).all()
    assert (scores.n_epochs == EPOCHS).all()
    assert list(scores.columns())[:4] == ["el2n", "el2n_error", "aum", "aum_error"]


def test_a_common_offset_of_the_logits_costs_no_precision(tmp_path, whole):
    logits, labels = made_logits()
    lifted = record(Recording(tmp_path / "lifted", n_examples=N), logits.double() + 70_000, labels)
    for name, values in whole.scores().values.items():
        np.testing.assert_allclose(lifted.scores().values[name], values, rtol=0.02, atol=0.02)


def test_classes_without_any_chance_lie_beyond_half_precision(tmp_path):
    logits = torch.tensor([[0.0, 1.0, -1e6], [0.0, -1e6, 0.0]])
    recording = Recording(tmp_path / "r", n_examples=2)
    recording(0, torch.arange(2), logits, torch.tensor([1, 1]))
    aum = recording.scores().values["aum"]
    assert aum[0] == 1
    assert aum[1] == -65504


@pytest.mark.parametrize("classes", [65, 300, 70_000])
def test_of_many_classes_the_scores_are_those_of_all_logits(tmp_path, classes):
    logits, labels = made_logits(classes=classes, n=20)
    recording = record(Recording(tmp_path / "r", n_examples=20), logits, labels)
    wanted = in_memory(logits, labels, Classification(n_classes=classes))
    assert recording.record_bytes < 2 * classes
    found = recording.tensors()
    assert set(wanted) - set(found) == {"probability"}
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=5e-3, atol=5e-3)
    np.testing.assert_array_equal(recording.scores().labels, labels)


def test_probabilities_of_many_classes_sum_to_one_and_hold_the_likeliest(tmp_path):
    logits, labels = made_logits(classes=80, n=20)
    recording = record(Recording(tmp_path / "r", n_examples=20, top=40), logits, labels)
    found = recording.probabilities(5, 12)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=5e-3)
    wanted = logits.softmax(dim=2).mean(dim=0)[5:12].numpy()
    np.testing.assert_allclose(found, wanted, atol=5e-3)


def test_probabilities_of_few_classes_are_their_means(whole):
    wanted = made_logits()[0].softmax(dim=2).mean(dim=0)[10:20]
    np.testing.assert_allclose(whole.probabilities(10, 20), wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("task", "outputs", "targets"),
    [
        (Classification(n_classes=2), torch.randn(3, N, 1), torch.arange(N) % 2),
        (Classification(n_classes=4, label_smoothing=0.1), torch.randn(3, N, 4), torch.arange(N) % 4),
        (Classification(n_classes=2, class_weights=(1.0, 5.0)), torch.randn(3, N, 2), torch.arange(N) % 2),
        (Regression(), torch.randn(3, N) * 1e5, torch.randn(N)),
        (Regression(), torch.randn(3, N, 2), torch.randn(N, 2)),
        (MultiLabel(("a", "b")), torch.randn(3, N, 2), (torch.randn(N, 2) > 0).float()),
        (Segmentation(("a", "b")), torch.randn(3, N, 2, 2, 2), torch.arange(N * 4).reshape(N, 2, 2) % 2),
    ],
    ids=["one logit", "smoothed", "weighted", "values", "several values", "several labels", "masks"],
)
def test_every_task_is_recorded_with_what_its_scores_need(tmp_path, task, outputs, targets):
    recording = record(Recording(tmp_path / "r", n_examples=N, task=task), outputs, targets)
    wanted, found = in_memory(outputs, targets, task), Recording(tmp_path / "r").tensors()
    assert tuple(found) == recorded_names(task) == tuple(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-3, atol=2e-3)
    assert set(recording.scores().values) >= {"loss", "loss_deviation"}


def test_a_task_that_gives_no_loss_of_an_example_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="the loss of a whole batch"):
        Recording(tmp_path / "r", n_examples=N, task=Detection(("a",)))(0, torch.arange(2), torch.zeros(2, 3), None)


def test_what_a_killed_process_stored_is_there_and_it_goes_on_as_if_it_had_never_been_killed(tmp_path, whole):
    code = "record(Recording(folder, n_examples=N), *made_logits(), stop_after=19)"
    killed = in_a_process(code, tmp_path / "killed")
    assert killed.wait(PATIENCE_S) == -signal.SIGKILL, killed.stderr.read()
    killed.stderr.close()
    # 8 batches an epoch: two epochs and three batches.
    scores = Recording(tmp_path / "killed").scores(partial=True)
    assert scores.n_torn == 0
    assert scores.n_epochs.sum() == 2 * N + 3 * BATCH
    again = Recording(tmp_path / "killed", n_examples=N)
    assert again.epochs == (0, 1, 2)
    record(again, *made_logits(), epochs=range(2, EPOCHS))
    same(again.scores(), whole.scores())


@pytest.mark.parametrize(("first", "last"), [(10, 24), (0, 10), (8, 9)])
def test_a_record_that_was_only_begun_is_known_and_left_out(tmp_path, whole, first, last):
    path = records(tmp_path / "whole", epoch=3)
    content = bytearray(path.read_bytes())
    content[24 * 7 + first : 24 * 7 + last] = bytes(last - first)
    path.write_bytes(content)
    scores = whole.scores()
    assert scores.n_torn == 1
    assert scores.n_epochs.tolist() == [EPOCHS - (i == 7) for i in range(N)]
    logits, labels = made_logits()
    rest = torch.cat([logits[:3], logits[4:]])
    assert scores.values["aum"][7] == pytest.approx(in_memory(rest, labels, TASK)["aum"][7].item(), abs=5e-3)


def test_ranks_write_to_one_map_at_once(tmp_path, whole):
    code = "record(Recording(folder, n_examples=N), *made_logits(), rows=torch.arange({}, N, 3))"
    ranks = [in_a_process(code.format(rank), tmp_path / "shared") for rank in range(3)]
    for rank in ranks:
        assert rank.wait(PATIENCE_S) == 0, rank.stderr.read()
        rank.stderr.close()
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    same(Recording(tmp_path / "shared").scores(), whole.scores())


def test_a_rank_that_comes_while_another_begins_takes_part(tmp_path, whole, monkeypatch):
    """It looked for the header just before that was written, and for other files just after."""
    looked = []

    def late(folder):
        looked.append(folder)
        return None if len(looked) == 1 else read_header(folder)

    read_header = recording_module.read_header
    monkeypatch.setattr(recording_module, "read_header", late)
    found = Recording(tmp_path / "whole", n_examples=N)
    assert len(looked) == 2
    same(found.scores(), whole.scores())


def test_parts_that_were_written_apart_are_read_together(tmp_path, whole):
    for rank in range(2):
        part = Recording(tmp_path / f"machine {rank}", n_examples=N, part=f"rank-{rank}")
        record(part, *made_logits(), rows=torch.arange(rank, N, 2)).close()
    with pytest.raises(RunError, match="example 0 of 60 is in no epoch"):
        Recording(tmp_path / "machine 1").scores()
    for path in (tmp_path / "machine 1").glob("epoch-*"):
        path.rename(tmp_path / "machine 0" / path.name)
    same(Recording(tmp_path / "machine 0").scores(), whole.scores())


def test_what_torchrun_says_of_several_machines_names_the_part(monkeypatch):
    for here, everywhere, part in [("2", "2", ""), ("2", "4", "machine-1"), (None, "4", "machine-1"), (None, None, "")]:
        for name, value in [("LOCAL_WORLD_SIZE", here), ("WORLD_SIZE", everywhere), ("GROUP_RANK", "1")]:
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        assert epoch_files.part_of_machine() == part


def test_the_size_of_blocks_changes_nothing(whole):
    from prunus.score import scores_of

    for block in (1, 7, N):
        same(scores_of([whole], block=block), whole.scores())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_output_that_is_no_number_names_its_example(tmp_path, value):
    logits, labels = made_logits()
    recording = Recording(tmp_path / "r", n_examples=N)
    outputs = logits[0][[4, 2, 9]]
    outputs[1, 3] = value
    with pytest.raises(NotFiniteError, match="the outputs of example 2 in epoch 5 are NaN or infinite"):
        recording(5, [4, 2, 9], outputs, labels[[4, 2, 9]])
    assert recording.epochs == (), "nothing of the batch was kept"


def test_a_loss_that_is_no_number_names_its_example(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N, task="regression")
    with pytest.raises(NotFiniteError, match="the loss of example 8 in epoch 0 is NaN"):
        recording(0, torch.tensor([7, 8]), torch.tensor([0.0, torch.nan]), torch.zeros(2))


def test_positions_and_labels_outside_are_refused(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)
    with pytest.raises(DataError, match="positions from 0 to 59 as index, got 60"):
        recording(0, [1, 60], torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="positions from 0 to 59 as index, got -1"):
        recording(0, [1, -1], torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    for label in (3, -100):
        with pytest.raises(DataError, match=f"example 4 in epoch 0: expected a class number from 0 to 2, got {label}"):
            recording(0, [1, 4], torch.zeros(2, 3), torch.tensor([0, label]))
    with pytest.raises(ShapeError, match=r"must be \(3, classes\)"):
        recording(0, [1, 2, 3], torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


def test_one_target_or_place_is_not_taken_for_all(tmp_path):
    """Broadcasting would."""
    recording = Recording(tmp_path / "classes", n_examples=N)
    with pytest.raises(ShapeError, match="got 3 places and 1 targets"):
        recording(0, [1, 2, 3], torch.zeros(3, 3), torch.tensor([0]))
    values = Recording(tmp_path / "values", n_examples=N, task="regression")
    with pytest.raises(ShapeError, match="got 3 places and 1 outputs"):
        values(0, [1, 2, 3], torch.zeros(1), torch.zeros(1))


def test_a_recording_without_an_epoch_has_no_scores_and_asks_for_no_memory(tmp_path, whole):
    for path in (tmp_path / "whole").glob("epoch-*"):
        path.unlink()
    header = tmp_path / "whole" / "header.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "n_examples": 1 << 39}))
    with pytest.raises(RunError, match="holds no epoch"):
        Recording(tmp_path / "whole").scores()


def test_another_recording_is_never_mixed_in(tmp_path, whole):
    folder = tmp_path / "whole"
    for options, said in [
        ({"n_examples": N + 1}, "n_examples 60: got 61"),
        ({"n_examples": N, "task": "regression"}, "task 'classification': got 'regression'"),
    ]:
        with pytest.raises(OutputError, match=said):
            Recording(folder, **options)
    with pytest.raises(OutputError, match="n_classes 10: got 3"):
        Recording(folder, n_examples=N)(0, [0], torch.zeros(1, 3), torch.tensor([0]))
    Recording(tmp_path / "printed", n_examples=2, fingerprint="a")(0, [0], torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(OutputError, match="fingerprint 'a': got 'b'"):
        Recording(tmp_path / "printed", fingerprint="b")
    Recording(tmp_path / "printed", fingerprint="a")
    fresh = Recording(folder, n_examples=5, overwrite=True)
    record(fresh, *made_logits(n=5))
    assert fresh.scores().n_epochs.tolist() == [EPOCHS] * 5


def test_a_folder_without_a_recording_needs_to_be_told_how_many_examples(tmp_path):
    with pytest.raises(RecipeError, match="give n_examples"):
        Recording(tmp_path / "r")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="no recording"):
        Recording(tmp_path, n_examples=3)
    with pytest.raises(DataError, match="holds no recording yet"):
        Recording(tmp_path / "r", n_examples=3).scores()


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"n_examples": -1}, {"n_examples": True}, {"layout": {"kind": "x"}}, {"more": 1}, {"task": 3}],
)
def test_a_damaged_header_is_said_to_be(tmp_path, whole, change):
    path = tmp_path / "whole" / "header.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=r"header\.json"):
        Recording(tmp_path / "whole")
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        Recording(tmp_path / "whole")


def test_a_file_that_was_cut_is_named(tmp_path, whole):
    path = records(tmp_path / "whole", epoch=1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"epoch-000001.records: expected 1440 bytes for 60 examples, got 1439"):
        whole.scores()
    with pytest.raises(OutputError, match="was cut"):
        record(Recording(tmp_path / "whole", n_examples=N), *made_logits(), epochs=[1])


def test_a_full_disk_is_told_before_anything_is_mapped(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(epoch_files.os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="no space left"):
        record(Recording(tmp_path / "r", n_examples=N), *made_logits())
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["header.json"], "nothing half-written stays"


def test_the_outputs_keep_their_graph(tmp_path):
    outputs = torch.randn(N, CLASSES, requires_grad=True)
    Recording(tmp_path / "r", n_examples=N)(0, torch.arange(N), outputs, torch.zeros(N, dtype=torch.int64))
    outputs.sum().backward()


def test_what_is_still_on_its_way_from_a_device_is_stored_with_the_next_batch(tmp_path, monkeypatch, whole):
    waited = []

    class Event:
        def synchronize(self):
            waited.append(1)

    monkeypatch.setattr(_Pending, "of", classmethod(lambda cls, *given: cls(*given, Event())))
    late = record(Recording(tmp_path / "late", n_examples=N), *made_logits())
    assert len(waited) == 8 * EPOCHS - 1
    same(late.scores(), whole.scores())
    assert len(waited) == 8 * EPOCHS


def test_a_recording_remembers_the_task_and_its_options(tmp_path):
    task = Classification(("cat", "dog"), class_weights=(1.0, 2.0))
    Recording(tmp_path / "r", n_examples=2, task=task)(0, [0, 1], torch.zeros(2, 2), torch.tensor([0, 1]))
    assert Recording(tmp_path / "r").task == task
