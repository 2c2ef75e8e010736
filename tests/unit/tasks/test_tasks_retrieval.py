"""Vectors that find their like: against torchmetrics, and a search one by one."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from prunus.core.errors import DataError, ShapeError
from prunus.evaluate import measure_quality, observe
from prunus.tasks.retrieval import Retrieval
from task_samples import batch_of, value_of


def drawn(seed, n=40, size=5):
    draw = torch.Generator().manual_seed(seed)
    items = torch.randint(n // 4, (n,), generator=draw)
    centres = torch.randn(n, size, generator=draw)
    return centres[items] + torch.randn(n, size, generator=draw), items


def oracle(metric, query, item, alike, hidden):
    """Feed torchmetrics every pair of a query and an item that it may find."""
    # Over 0, since torchmetrics takes what isn't for not found at all.
    cosines = functional.normalize(query, dim=1) @ functional.normalize(item, dim=1).T + 2
    rows = torch.arange(len(query))[:, None].expand_as(cosines)
    return float(metric(cosines[~hidden], alike[~hidden], indexes=rows[~hidden]))


@pytest.mark.parametrize("seed", range(3))
def test_examples_of_one_number_find_each_other_as_torchmetrics_says(seed):
    vectors, items = drawn(seed)
    batch, itself = batch_of(items), torch.eye(len(items), dtype=torch.bool)
    alike = items[:, None] == items[None, :]
    for k in (1, 5, 10):
        expected = oracle(RetrievalHitRate(top_k=k, empty_target_action="skip"), vectors, vectors, alike, itself)
        assert value_of(Retrieval(), f"recall_at_{k}", vectors, batch) == pytest.approx(expected, abs=1e-6)
    expected = oracle(RetrievalMRR(empty_target_action="skip"), vectors, vectors, alike, itself)
    assert value_of(Retrieval(), "mrr", vectors, batch) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_find_each_other_as_torchmetrics_says(seed):
    query, _ = drawn(seed)
    item = query + torch.randn(query.shape, generator=torch.Generator().manual_seed(seed + 9))
    alike, hidden = torch.eye(len(query), dtype=torch.bool), torch.zeros(len(query), len(query), dtype=torch.bool)
    for outputs in ((query, item), {"text_embeds": query, "image_embeds": item, "logits_per_text": query @ item.T}):
        batch = batch_of(None, n=len(query))
        Retrieval().check(outputs, batch)
        for name, metric in (("recall_at_1", RetrievalHitRate(top_k=1)), ("mrr", RetrievalMRR())):
            expected = oracle(metric, query, item, alike, hidden)
            assert value_of(Retrieval(), name, outputs, batch) == pytest.approx(expected, abs=1e-6)


def test_what_has_no_like_is_no_query_and_a_tie_is_not_found():
    same = torch.ones(4, 2)
    items = torch.tensor([0, 0, 1, 2])
    task = Retrieval()
    seen = task.settled(task.observe(same, batch_of(items)))
    assert seen["rank"].tolist() == [3, 3, 0, 0]
    assert value_of(task, "recall_at_1", same, batch_of(items)) == 0.0
    assert value_of(task, "recall_at_5", same, batch_of(items)) == 1.0


def test_without_any_query_nothing_is_found():
    assert value_of(Retrieval(), "mrr", torch.randn(3, 2), batch_of(torch.arange(3))) == 0.0


def test_ranks_are_those_of_the_whole_set_whatever_the_batches():
    vectors, items = drawn(1)

    class Set:
        def __len__(self):
            return len(items)

        def batches(self, batch_size, generator=None):
            for rows in torch.arange(len(items)).split(batch_size):
                yield type(batch_of(items))(rows, vectors[rows], items[rows])

    task = Retrieval()
    found = [observe(torch.nn.Identity(), Set(), task, batch_size=size)["rank"] for size in (7, 40)]
    np.testing.assert_array_equal(found[0], found[1])
    quality = measure_quality({"rank": found[0]}, task, bootstrap=100)
    assert quality.value("recall_at_1") == pytest.approx(value_of(task, "recall_at_1", vectors, batch_of(items)))


def test_the_loss_of_pairs_is_that_of_clip():
    query, _ = drawn(2)
    item = query + torch.randn(query.shape, generator=torch.Generator().manual_seed(0))
    cosines = functional.normalize(query, dim=1) @ functional.normalize(item, dim=1).T / 0.1
    places = torch.arange(len(query))
    expected = (functional.cross_entropy(cosines, places) + functional.cross_entropy(cosines.T, places)) / 2
    assert torch.allclose(Retrieval(temperature=0.1).loss((query, item), batch_of(None, n=40)), expected, rtol=1e-5)


def test_an_example_without_its_like_in_the_batch_has_no_loss_and_no_gradient():
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = Retrieval().losses(vectors, batch_of(torch.tensor([0, 0, 1, 2])))
    assert losses.detach()[2:].tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(losses.sum(), vectors)
    assert bool(gradient.isfinite().all())
    alone = Retrieval().loss(vectors, batch_of(torch.arange(4)))
    assert float(alone.detach()) == 0


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "said"),
    [
        (
            torch.zeros(3, 2),
            None,
            DataError,
            r"a number of what each example shows, \(3,\): got None.* pair of vectors",
        ),
        (torch.zeros(3, 2), torch.zeros(3), DataError, r"got float32 \[3\]"),
        (torch.zeros(3, 4, 2), torch.zeros(3).long(), ShapeError, r"one vector per example, \(3, size\)"),
        ((torch.zeros(3, 2), torch.zeros(3, 4)), None, ShapeError, "or a pair of them: got a tuple"),
        ((torch.zeros(2, 2), torch.zeros(3, 2)), None, ShapeError, "one vector per example"),
    ],
)
def test_what_does_not_fit_is_one_line(outputs, targets, error, said):
    with pytest.raises(error, match=said) as caught:
        Retrieval().check(outputs, batch_of(targets, n=3))
    assert str(caught.value).startswith("retrieval: ")
    assert "\n" not in str(caught.value)


def test_a_model_of_transformers_that_pairs_texts_and_images_is_read_as_it_is():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 20, "max_position_embeddings": 6, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    model = transformers.CLIPModel(config).eval()
    ids = torch.randint(3, 18, (5, 6))
    with torch.no_grad():
        outputs = model(input_ids=ids, pixel_values=torch.randn(5, 3, 16, 16), return_loss=True)
    task, batch = Retrieval(temperature=float(1 / model.logit_scale.detach().exp())), batch_of(None, n=5)
    assert torch.allclose(task.loss(outputs, batch), outputs.loss, rtol=1e-4)
    hits = (outputs.logits_per_text.argmax(dim=1) == torch.arange(5)).float().mean()
    assert value_of(task, "recall_at_1", outputs, batch) == pytest.approx(float(hits))
