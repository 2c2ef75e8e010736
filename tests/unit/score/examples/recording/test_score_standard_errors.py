"""Standard errors hold what they promise: intervals cover, whatever the epochs have to do with each other."""

import math

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError
from prunus.score import Recording, error_of_deviation, error_of_mean, scores_of
from prunus.score.examples.recording.standard_errors import DEGREES_OF_FREEDOM
from recording_stand_ins import CLASSES, EPOCHS, N, made_logits, record

T_QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182}
"""Of 95 % intervals, by degrees of freedom."""


def course_of(rho, length, n=20_000, seed=0):
    """Courses whose epochs hang on the one before, around zero."""
    draw = np.random.default_rng(seed)
    values = [draw.standard_normal(n) / math.sqrt(1 - rho**2)]
    for _ in range(length - 1):
        values.append(rho * values[-1] + draw.standard_normal(n))
    return torch.from_numpy(np.stack(values))


@pytest.mark.parametrize("length", [5, 10, 30])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.7])
def test_an_interval_from_one_training_covers_though_epochs_hang_on_each_other(rho, length):
    course = course_of(rho, length)
    covers = course.mean(dim=0).abs() <= T_QUANTILES[DEGREES_OF_FREEDOM] * error_of_mean(course)
    naive = course.mean(dim=0).abs() <= 1.96 * course.std(dim=0) / math.sqrt(length)
    # So slow a course isn't seen whole in a few epochs.
    assert covers.double().mean() > (0.92 if rho * 5 <= length / 4 else 0.8)
    assert covers.double().mean() < 0.97
    assert rho == 0 or covers.double().mean() > naive.double().mean() + 0.1


def test_independent_epochs_give_the_error_that_everybody_knows():
    course = course_of(0.0, 20)
    assert error_of_mean(course).square().mean().sqrt() == pytest.approx(1 / math.sqrt(20), rel=0.02)


def test_the_error_is_that_of_the_two_slowest_waves():
    course = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    for i in range(3):
        waves = [
            math.sqrt(2 / 7) * sum(float(course[t, i]) * math.cos(math.pi * j * (t + 0.5) / 7) for t in range(7))
            for j in (1, 2)
        ]
        assert error_of_mean(course)[i] == pytest.approx(math.sqrt((waves[0] ** 2 + waves[1] ** 2) / 2 / 7))


def test_epochs_that_are_missing_are_left_out():
    course = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gaps = course.clone()
    gaps[[1, 4], 0] = torch.nan
    assert error_of_mean(gaps)[0] == error_of_mean(course[[0, 2, 3, 5]])[0]
    assert error_of_mean(gaps)[1] == error_of_mean(course)[1]


def test_too_few_epochs_have_no_error_and_what_never_moves_has_none_to_speak_of():
    assert error_of_mean(torch.randn(2, 3)).isnan().all()
    assert error_of_mean(torch.ones(9, 3)).tolist() == [0, 0, 0]
    assert error_of_deviation(torch.ones(9, 3)).tolist() == [0, 0, 0]


def test_an_interval_of_a_deviation_covers_too():
    course = course_of(0.3, 60)
    truth = 1 / math.sqrt(1 - 0.3**2)
    deviation = course.std(dim=0, correction=0)
    covers = (deviation - truth).abs() <= T_QUANTILES[DEGREES_OF_FREEDOM] * error_of_deviation(course)
    assert 0.92 < covers.double().mean() < 0.97


def trainings(folder, n_trainings, n, spread=2.0):
    """Recordings of trainings in each of which an example has an easier or a harder time of it, and the truth."""
    draw = torch.Generator().manual_seed(3)
    labels = torch.randint(CLASSES, (n,), generator=draw)
    own = torch.nn.functional.one_hot(labels, CLASSES)
    made = []
    for number in range(n_trainings):
        lot = torch.randn(n, generator=draw) * spread  # the same in all epochs of this training
        logits = own * (4 + lot)[:, None] + torch.zeros(4, n, CLASSES)
        made.append(record(Recording(folder / str(number), n_examples=n), logits, labels, batch=n))
    return made


@pytest.mark.parametrize("n_trainings", [2, 3, 4])
def test_an_interval_from_several_trainings_covers_what_another_seed_would_have_given(tmp_path, n_trainings):
    """One training can't see this: all its epochs had the same luck."""
    made = trainings(tmp_path, n_trainings, 4000)
    scores = scores_of(made)
    assert scores.degrees_of_freedom == n_trainings - 1
    covers = np.abs(scores.values["aum"] - 4) <= T_QUANTILES[n_trainings - 1] * scores.errors["aum"]
    assert 0.93 < covers.mean() < 0.97
    single = np.abs(made[0].scores().values["aum"] - 4) <= T_QUANTILES[2] * made[0].scores().errors["aum"]
    assert single.mean() < 0.5


def test_several_trainings_give_the_mean_and_the_deviation_over_the_root_of_their_number(tmp_path):
    made = [record(Recording(tmp_path / str(s), n_examples=N), *made_logits(seed=s)) for s in range(3)]
    scores, alone = scores_of(made), [one.scores() for one in made]
    for name in scores.values:
        each = np.stack([one.values[name] for one in alone]).astype(np.float64)
        np.testing.assert_allclose(scores.values[name], each.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scores.errors[name], each.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-4, atol=1e-6)
    assert (scores.n_epochs == 3 * EPOCHS).all()
    assert scores.n_recordings == 3


def test_how_often_an_example_was_forgotten_has_the_error_of_its_events(tmp_path):
    right = torch.tensor([[1, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.float32).T
    logits = torch.stack([right, 1 - right], dim=2)
    recording = record(Recording(tmp_path / "r", n_examples=3), logits, torch.zeros(3, dtype=torch.int64))
    scores = recording.scores()
    assert scores.values["forgetting"].tolist() == [2, 6, 0]
    events = torch.tensor([[1.0], [0.0], [1.0], [0.0], [0.0]])
    assert scores.errors["forgetting"][0] == pytest.approx(5 * float(error_of_mean(events)[0]))
    assert np.isnan(scores.errors["forgetting"][1]), "how often it was seen is no estimate of anything"
    assert scores.errors["forgetting"][2] == 0


def test_recordings_of_other_data_are_not_scored_together(tmp_path):
    made = [record(Recording(tmp_path / str(n), n_examples=n), *made_logits(n=n)) for n in (20, 30)]
    with pytest.raises(DataError, match="got 20 and 30 examples"):
        scores_of(made)
    with pytest.raises(DataError, match="at least one recording"):
        scores_of([])
