"""A cut that the config says comes back from a folder of transformers, whoever asked for it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import prunus
from prunus import ModelOptimizer
from prunus.core.errors import ModelError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

BERT = {"vocab_size": 41, "max_position_embeddings": 16, "hidden_size": 24, "num_hidden_layers": 3}
BERT |= {"num_attention_heads": 3, "intermediate_size": 32}


def bert(**options):
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, **options)).eval()


def ids(n, seed=0):
    return torch.randint(3, 41, (n, 9), generator=torch.Generator().manual_seed(seed))


def same_as_saved(model, folder):
    model.eval().save_pretrained(folder)
    again = type(model).from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids(3)).logits, model(ids(3)).logits)


@pytest.mark.parametrize("amount", [{"keep_fraction": 0.5}, {"target": {"params": 0.6}}])
def test_three_lines_give_a_model_that_from_pretrained_loads(amount, tmp_path):
    model = bert()
    small = prunus.prune(model, {"input_ids": ids(4)}, expressible=True, **amount)
    widths = {layer.intermediate.dense.out_features for layer in small.model.bert.encoder.layer}
    assert len(widths) == 1
    if "target" in amount:
        assert 0.45 < small.after.parameters / small.before.parameters <= 0.6
    same_as_saved(small.model, tmp_path)


def test_with_data_every_allocation_keeps_one_number_for_all_layers(tmp_path):
    small = prunus.prune(
        bert(), {"input_ids": ids(4)}, data={"input_ids": ids(48)}, keep_fraction=0.5, expressible=True
    )
    assert {row.allocation for row in small.tried} > {"uniform"}
    same_as_saved(small.model, tmp_path)


def test_what_the_config_cannot_say_alone_is_named():
    said = r"alone: hidden_size shrinks head_dim, mlp, width; intermediate_size shrinks mlp; hidden_size with num_attention_heads "
    with pytest.raises(ModelError, match=said):
        prunus.prune(bert(), {"input_ids": ids(4)}, granularity="head", expressible=True)


def test_a_layer_that_stays_whole_keeps_all_that_its_number_stands_for():
    small = prunus.prune(bert(), {"input_ids": ids(4)}, expressible=True, exclude=["*.1.intermediate.dense.bias"])
    assert {layer.intermediate.dense.out_features for layer in small.model.bert.encoder.layer} == {32}


@pytest.mark.parametrize("unit", ["channel", "block"])
def test_a_recipe_cuts_by_settings_too(unit, tmp_path):
    x, y = ids(120), np.arange(120) % 2
    strategy = {"criterion": "magnitude_l2", "granularity": unit, "keep_fraction": 0.6, "expressible": True}
    optimizer = ModelOptimizer(
        bert(num_labels=2), ({"input_ids": x.numpy()}, y), strategy=strategy, trained=True, recovery={"method": "none"}, seeds=[0]
    )  # fmt: skip
    optimizer.prune()
    config = optimizer.model_.config
    assert config.num_hidden_layers == (2 if unit == "block" else 3)
    assert (config.intermediate_size < 32) == (unit == "channel")
    same_as_saved(optimizer.model_, tmp_path / "hf")
    optimizer.save(tmp_path / "bundle")
