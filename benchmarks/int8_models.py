"""What is trained for the table of pruning and int8 (``int8.py``): a ResNet on handwritten digits, a BERT on documentation."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from contract import mnist
from task_models import packages
from torch import Tensor, nn
from torch.utils.data import TensorDataset

__all__ = ["RECIPES", "Bert", "bert", "digits", "documentation"]

EVALUATION = {"latency": {"batch_size": 8, "repeats": 20}}
CONTRACT = {"max_drop": 0.01}
RECIPES: dict[str, dict[str, Any]] = {
    "resnet": {
        "data": {"source": "int8_models:digits", "split": {"validation": 0.15, "calibration": 0.05, "test": 0.4}},
        "model": {"builder": "resnet", "args": {"width": 32, "blocks": 1}},
        "train": {"epochs": 4, "batch_size": 64},
        "strategy": {"granularity": "channel", "criterion": "taylor", "keep_fraction": 0.5, "round_to": 16},
        "recovery": {"epochs": 4, "batch_size": 64},
    },
    "bert": {
        "data": {"source": "int8_models:documentation", "split": {"validation": 0.1, "calibration": 0.05, "test": 0.4}},
        "model": {"builder": "int8_models:bert"},
        "train": {"epochs": 8, "batch_size": 32, "learning_rate": 3e-4},
        "strategy": {"granularity": ["head", "channel"], "criterion": "taylor", "keep_fraction": 0.5, "round_to": 16},
        "recovery": {"epochs": 4, "batch_size": 32, "learning_rate": 3e-4},
    },
}
"""Of each model; the contract is tested on the exported file, so none decides in the run."""


def digits() -> TensorDataset:
    """Return ten thousand handwritten digits of MNIST, 28 x 28."""
    return mnist()


@cache
def documentation() -> TensorDataset:
    """Return paragraphs of the documentation of four packages as 48 words each, and which package they come from."""
    return TensorDataset(*packages())


class Bert(nn.Module):
    """BERT with four layers of 256."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        import transformers

        config = transformers.BertConfig(
            vocab_size=4001, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
            max_position_embeddings=64, num_labels=classes, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
        )  # fmt: skip
        self.bert = transformers.BertForSequenceClassification(config)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.bert(input_ids=ids, attention_mask=(ids > 0).long()).logits
        return found


def bert(n_outputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return Bert(n_outputs)
