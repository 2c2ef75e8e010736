"""The language model of examples/language.py is pruned, its Trainer goes on, and from_pretrained brings it back."""

import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason='Trainer needs it: pip install "transformers[torch]"')

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "language.py"))


def test_held_out_topics_are_not_trained_on(example):
    text, held_out = example["parts"](50)
    assert text.pieces.shape[1] == held_out.pieces.shape[1] == example["LENGTH"]
    assert len(held_out) == 50
    trained = {bytes(piece.tolist()) for piece in text.pieces}
    assert not trained & {bytes(piece.tolist()) for piece in held_out.pieces}
    assert b"Python" in b"".join(trained)


@pytest.mark.filterwarnings("ignore")  # of transformers and accelerate
def test_the_trainer_goes_on_with_half_of_the_model_and_from_pretrained_brings_it_back(example, tmp_path):
    result = example["main"](tmp_path, steps=30, steps_on=20, n_test=80, criterion="magnitude_l2")
    assert result.small.kind == "eager"
    assert result.small.after.macs <= result.small.before.macs / 2
    assert not any("from_pretrained" in note for note in result.small.notes)
    assert result.cut.pruned > result.cut.dense  # a cut costs something,
    assert result.trained.pruned < result.cut.pruned  # and the user's trainer gets it back
    assert result.trained.metric == "perplexity"
    assert result.trained.bound >= result.trained.drop == pytest.approx(result.trained.pruned - result.trained.dense)
    again = type(result.small.model).from_pretrained(tmp_path / "pruned").eval()
    ids = example["parts"](3)[1].pieces
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, result.small.model.eval()(ids).logits)
