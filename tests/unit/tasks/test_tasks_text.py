"""Tokens: perplexity and accuracies by the definition, models of transformers as they are, and what doesn't fit in one line."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchmetrics.functional import classification
from torchmetrics.functional.text import perplexity

from prunus.core.calls import call
from prunus.core.errors import DataError, ShapeError
from prunus.evaluate import measure_quality
from prunus.tasks.text import Language, SequenceToSequence, TokenClassification
from task_samples import Answer, batch_of, value_of


def drawn(seed, n=4, length=6, vocabulary=11):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (n, length), generator=draw)
    return torch.randn(n, length, vocabulary, generator=draw), ids


@pytest.mark.parametrize("seed", range(3))
def test_perplexity_is_what_torchmetrics_says_of_the_next_tokens(seed):
    scores, ids = drawn(seed)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.3, -100)
    expected = float(perplexity(scores[:, :-1], labels[:, 1:], ignore_index=-100))
    batch = batch_of(labels, {"input_ids": ids})
    assert value_of(Language(), "perplexity", Answer(scores), batch) == pytest.approx(expected, rel=1e-5)
    asked = labels[:, 1:] != -100
    right = (scores[:, :-1].argmax(dim=2) == labels[:, 1:])[asked]
    assert value_of(Language(), "token_accuracy", scores, batch) == pytest.approx(float(right.float().mean()))


def test_a_long_text_counts_for_more_than_a_short_one():
    scores, ids = drawn(0)
    labels = ids.clone()
    labels[0, 2:] = -100
    found = value_of(Language(), "perplexity", scores, batch_of(labels))
    each = functional.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    assert found == pytest.approx(math.exp(float(each.sum()) / int((labels[:, 1:] != -100).sum())), rel=1e-5)
    assert torch.allclose(Language().loss(scores, batch_of(labels)), torch.tensor(found).log(), rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_by_the_attention_mask_is_no_token(side):
    scores, ids = drawn(1)
    mask = torch.ones_like(ids)
    padded = slice(0, 2) if side == "left" else slice(4, 6)
    mask[0, padded] = 0
    found = value_of(Language(), "perplexity", scores, batch_of(None, {"input_ids": ids, "attention_mask": mask}, n=4))
    kept = slice(2, 6) if side == "left" else slice(0, 4)
    nll = functional.cross_entropy(scores[0, kept][:-1], ids[0, kept][1:], reduction="sum")
    nll = nll + functional.cross_entropy(scores[1:, :-1].flatten(0, 1), ids[1:, 1:].flatten(), reduction="sum")
    assert found == pytest.approx(math.exp(float(nll) / (3 + 3 * 5)), rel=1e-5)


def test_without_targets_labels_among_the_inputs_come_before_the_tokens_themselves():
    scores, ids = drawn(2)
    labels = ids.clone()
    labels[:, :3] = -100
    among = batch_of(None, {"input_ids": ids, "labels": labels}, n=4)
    assert value_of(Language(), "perplexity", scores, among) == value_of(
        Language(), "perplexity", scores, batch_of(labels)
    )
    plain = batch_of(None, ids, n=4)
    assert value_of(Language(), "perplexity", scores, plain) == value_of(
        Language(), "perplexity", scores, batch_of(ids)
    )


def test_targets_that_are_the_next_tokens_already_are_seen_and_can_be_said_to_be():
    text = torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(0))
    scores, _ = drawn(0)
    batch = batch_of(text[:, 1:], {"input_ids": text[:, :-1]})
    with pytest.raises(DataError, match="targets are the next tokens of the inputs"):
        Language().check(scores, batch)
    said = Language(targets_are_next=True)
    said.check(scores, batch)
    expected = functional.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten())
    assert value_of(said, "perplexity", scores, batch) == pytest.approx(math.exp(float(expected)), rel=1e-5)
    Language().check(scores, batch_of(text[:, :-1], {"input_ids": text[:, :-1]}))


def test_a_causal_model_of_transformers_is_measured_as_it_measures_itself():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(17, (3, 8))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        own = model(**inputs, labels=ids).loss
        outputs = call(model, inputs)
    batch = batch_of(None, inputs, n=3)
    Language().check(outputs, batch)
    assert torch.allclose(Language().loss(outputs, batch), own, rtol=1e-5)
    assert value_of(Language(), "perplexity", outputs, batch) == pytest.approx(math.exp(float(own)), rel=1e-5)


def test_a_model_that_translates_is_measured_as_it_measures_itself():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=19, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    config.decoder_start_token_id = 0
    model = transformers.T5ForConditionalGeneration(config).eval()
    labels = torch.randint(1, 19, (3, 5))
    labels[0, 3:] = -100
    inputs = {"input_ids": torch.randint(19, (3, 6)), "labels": labels}
    with torch.no_grad():
        outputs = call(model, inputs)
    batch = batch_of(None, inputs, n=3)
    SequenceToSequence().check(outputs, batch)
    assert value_of(SequenceToSequence(), "perplexity", outputs, batch) == pytest.approx(
        math.exp(float(outputs.loss)), rel=1e-5
    )


def test_a_sequence_is_matched_when_every_token_that_is_asked_is():
    labels = torch.tensor([[1, 2, -100], [1, 2, 3], [0, 0, 0]])
    scores = 5.0 * functional.one_hot(torch.tensor([[1, 2, 0], [1, 2, 0], [0, 0, 0]]), 4)
    task, batch = SequenceToSequence(), batch_of(labels)
    assert value_of(task, "exact_match", scores, batch) == pytest.approx(2 / 3)
    assert value_of(task, "token_accuracy", scores, batch) == pytest.approx(7 / 8)
    quality = measure_quality(task.observe(scores, batch), task, metrics=["exact_match"], bootstrap=50)
    assert quality.metrics[0].low > 0.2  # Wilson's, not a bootstrap's of three


def test_without_tags_tokens_are_counted_by_class():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (5, 7), generator=draw)
    scores = torch.randn(5, 7, 4, generator=draw)
    labels[0, 3:] = -100
    asked = labels != -100
    said, true = scores.argmax(dim=2)[asked], labels[asked]
    task, batch = TokenClassification(("noun", "verb", "other", "none")), batch_of(labels)
    for name, average in (("f1_macro", "macro"), ("f1_weighted", "weighted"), ("f1_micro", "micro")):
        expected = classification.multiclass_f1_score(said, true, num_classes=4, average=average)
        assert value_of(task, name, scores, batch) == pytest.approx(float(expected), abs=1e-6)
    assert torch.allclose(task.loss(scores, batch), functional.cross_entropy(scores.movedim(2, 1), labels))


def test_an_answer_is_a_class_for_each_token():
    read = TokenClassification(("O", "B-X")).decode(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert read.labels == (["O", "B-X"],)
    assert Language().decode(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).labels == ([0, 1],)


def test_a_text_of_which_nothing_is_asked_adds_nothing():
    scores, ids = drawn(3)
    labels = ids.clone()
    labels[2] = -100
    rest = [0, 1, 3]
    for task in (Language(), SequenceToSequence()):
        found = value_of(task, "perplexity", scores, batch_of(labels))
        assert found == pytest.approx(value_of(task, "perplexity", scores[rest], batch_of(labels[rest])), rel=1e-9)
        assert bool(task.losses(scores, batch_of(labels)).isfinite().all())


def test_a_hopeless_model_has_a_perplexity_that_is_a_number():
    scores = torch.zeros(1, 2, 3)
    scores[0, 0, 0] = 5000.0
    assert np.isfinite(value_of(Language(), "perplexity", scores, batch_of(torch.tensor([[0, 1]]))))


TASKS = (Language(), SequenceToSequence(), TokenClassification())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize(
    ("outputs", "targets", "error", "said"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 3), DataError, r"class number for each token, \(2, tokens\).* float32"),
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), DataError, r"got int64 \[2\]"),
        (torch.zeros(2, 3, 4), torch.full((2, 3), 4), DataError, "class numbers 0..3.* got 4..4"),
        (torch.zeros(2, 3, 4), torch.full((2, 3), -1), DataError, "got -1..-1"),
        (torch.zeros(2, 4), torch.zeros(2, 3).long(), ShapeError, r"\(2, 3, classes\): got \(2, 4\)"),
        (
            Answer(torch.zeros(2, 5, 4)),
            torch.zeros(2, 3).long(),
            ShapeError,
            r"in a Answer \(logits: float32 \[2, 5, 4\]",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(task, outputs, targets, error, said):
    with pytest.raises(error, match=said) as caught:
        task.check(outputs, batch_of(targets))
    assert str(caught.value).startswith(f"{task.name}: ")
    assert "\n" not in str(caught.value)


def test_without_any_tokens_it_is_said_what_came():
    with pytest.raises(DataError, match=r"token ids as targets or among the inputs, .* got float32 \[2, 3\]"):
        Language().check(torch.zeros(2, 3, 4), batch_of(None, torch.zeros(2, 3), n=2))
    with pytest.raises(DataError, match="the tokens to write as targets, or as labels among the inputs"):
        SequenceToSequence().check(torch.zeros(2, 3, 4), batch_of(None, torch.zeros(2, 3), n=2))
    with pytest.raises(DataError, match="got None"):
        TokenClassification().check(torch.zeros(2, 3, 4), batch_of(None, torch.zeros(2, 3), n=2))


def test_as_many_scores_as_there_are_names():
    with pytest.raises(ShapeError, match="a score for each of 2 classes"):
        TokenClassification(("O", "B-X")).check(torch.zeros(1, 3, 4), batch_of(torch.zeros(1, 3).long()))
