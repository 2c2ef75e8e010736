"""Do scores of one answer mean what those of a training's recorder mean?"""

import numpy as np
import pytest
import torch

from prunus.core.errors import RecipeError, ShapeError
from prunus.score.examples.recorded import ExampleRecorder
from prunus.score.examples.recording.answer_scores import answer_scores, known_scores
from prunus.tasks import Classification, Regression


@pytest.mark.parametrize("n_classes", [2, 3, 40])
@pytest.mark.parametrize("by_column", [False, True])
def test_they_are_what_the_recorder_says_of_one_epoch(n_classes, by_column, batch_of):
    draw = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(50, n_classes, generator=draw)
    targets = torch.randint(0, n_classes, (50,), generator=draw)
    recorder = ExampleRecorder(50, Classification(tuple(map(str, range(n_classes)))))
    recorder(0, batch_of(torch.arange(50), None, targets), outputs)
    told = recorder.tensors()
    given = outputs.T.contiguous().T if by_column else outputs
    found = answer_scores(given, targets, exclusive=True)
    assert tuple(found) == known_scores(exclusive=True, labelled=True)
    for name in ("loss", "confidence", "aum", "el2n", "entropy"):
        np.testing.assert_allclose(found[name], told[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["margin"], 1 - told["gap"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found["prediction"], outputs.argmax(dim=1))
    np.testing.assert_allclose(found["probability"], outputs.softmax(dim=1).amax(dim=1), rtol=1e-5)


def test_values_have_errors(batch_of):
    outputs, targets = torch.randn(9, 1), torch.randn(9)
    recorder = ExampleRecorder(9, Regression())
    recorder(0, batch_of(torch.arange(9), None, targets), outputs)
    found = answer_scores(outputs, targets, exclusive=False)
    for name in ("loss", "el2n", "aum"):
        np.testing.assert_allclose(found[name], recorder.tensors()[name], rtol=1e-4)
    assert set(answer_scores(outputs, None, exclusive=False)) == {"prediction"}


def test_each_score_alone_is_the_same():
    outputs, targets = torch.randn(30, 4), torch.randint(0, 4, (30,))
    every = answer_scores(outputs, targets, exclusive=True)
    for name, value in every.items():
        assert torch.equal(answer_scores(outputs, targets, exclusive=True, names=(name,))[name], value)


def test_what_is_very_sure_or_hopeless_is_finite():
    outputs = torch.tensor([[1000.0, -1000.0, 0.0], [3e4, 3e4, -3e4], [-1e30, 0.0, 1e30]])
    for value in answer_scores(outputs, torch.tensor([1, 0, 0]), exclusive=True).values():
        assert value.isfinite().all()


def test_what_there_is_not_is_refused():
    outputs = torch.zeros(3, 2)
    with pytest.raises(RecipeError, match="no score 'loss' of classes: it needs labels"):
        answer_scores(outputs, None, exclusive=True, names=("loss",))
    with pytest.raises(RecipeError, match="no score 'entropi' of classes: did you mean 'entropy'"):
        answer_scores(outputs, None, exclusive=True, names=("entropi",))
    with pytest.raises(ShapeError, match=r"one logit per class, \(n, classes\): got \(3, 1\)"):
        answer_scores(torch.zeros(3, 1), None, exclusive=True)
    with pytest.raises(ShapeError, match=r"one output per example.*got \(3, 2\)"):
        answer_scores(outputs, None, exclusive=False)
