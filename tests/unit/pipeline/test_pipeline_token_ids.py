from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from prunus import ModelOptimizer
from prunus.pipeline.token_ids import are_ids

TOKENS = torch.randint(0, 50, (80, 7), generator=torch.Generator().manual_seed(0))
LABELS = (TOKENS[:, 0] > 24).long()


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hidden, self.out = nn.Embedding(50, 16), nn.Linear(16, 24), nn.Linear(24, 2)

    def forward(self, tokens):
        return self.out(torch.relu(self.hidden(self.embed(tokens).mean(1))))


class Pairs(Dataset):
    def __init__(self, dtype: torch.dtype) -> None:
        self.tokens = TOKENS.to(dtype)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int):
        return self.tokens[row], int(LABELS[row])


def optimizer(model: nn.Module, data, **more) -> ModelOptimizer:
    return ModelOptimizer(
        model, data, strategy="magnitude_l2", train={"epochs": 1}, recovery={"epochs": 1}, seeds=[0], **more
    )


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(
    "data",
    [(TOKENS, LABELS), (TOKENS.int().numpy(), LABELS.numpy()), TensorDataset(TOKENS, LABELS), Pairs(torch.int64)],
    ids=["tensors", "arrays", "tensor set", "set"],
)
def test_token_ids_stay_what_they_are_and_the_model_is_pruned(data, standardize):
    made = optimizer(Reader(), data, data_options={"standardize": standardize})
    prepared = made._job.data
    every = prepared.source.inputs(torch.arange(len(TOKENS)))
    assert every.dtype == torch.int64
    assert torch.equal(every, TOKENS)
    assert not prepared.scaler.scales
    assert any("ids" in note for note in prepared.notes)
    for batch in prepared.train.batches(8):
        assert torch.equal(batch.inputs, TOKENS[prepared.train.rows[batch.index]])
    smaller = made.fit().prune(keep_fraction=0.5).model_
    assert smaller.hidden.out_features == 12
    assert torch.equal(made.predict_outputs(TOKENS), smaller.eval()(TOKENS))
    assert set(made.evaluate()) == {"train", "test"}


def test_whole_numbers_that_a_model_takes_as_numbers_are_amounts():
    counts = torch.randint(0, 50, (80, 7))
    model = nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 2))
    assert not are_ids(counts, model)
    assert not are_ids(counts.float(), Reader())
    assert are_ids(TOKENS, Reader())
    prepared = optimizer(model, (counts, LABELS))._job.data
    assert next(iter(prepared.train.batches(4))).inputs.dtype == torch.float32
    assert prepared.scaler.scales
