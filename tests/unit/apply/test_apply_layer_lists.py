"""A list of a config with an entry for each block keeps those of the blocks that stay."""

from __future__ import annotations

import copy
import importlib.util
import sys
import warnings

import pytest
import torch
from torch import nn

from graph_zoo import randomize
from prunus.apply import shrink
from prunus.apply.configs import built_again
from prunus.graph import analyze


class Config:
    """``layers`` blocks: their kinds, their numbers; and as many sizes of another part."""

    def __init__(self) -> None:
        self.layers, self.width, self.bands = 4, 8, (3, 5)
        self.kinds = ["plain", "wide", "wide", "plain"]
        self.numbers = [0, 1, 2, 3]


class Block(nn.Module):
    def __init__(self, config: Config, place: int) -> None:
        super().__init__()
        self.factor = 3.0 if config.kinds[place] == "wide" else 1.0
        self.inner = nn.Linear(config.width, config.width)

    def forward(self, x, shift):
        return x + torch.tanh(self.inner(x)) * (self.factor + shift)


class Model(nn.Module):
    """Forward reads the lists, too."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.bands = nn.ModuleList(nn.Linear(1, size) for size in config.bands)
        self.start = nn.Linear(sum(config.bands), config.width)
        self.blocks = nn.ModuleList(Block(config, place) for place in range(config.layers))

    def forward(self, x):
        x = self.start(torch.cat([band(x[:, :1]) for band in self.bands], dim=1))
        for number, block in zip(self.config.numbers, self.blocks, strict=True):
            x = block(x, 0.5 if self.config.kinds[number] == "wide" else 0.0)
        return x

    @classmethod
    def from_pretrained(cls, folder):
        raise NotImplementedError


def without(model: nn.Module, keep: list[bool], x: torch.Tensor):
    graph = analyze(model, (x,))
    (name,) = (stack.name for stack in graph.stacks if stack.name == "blocks (blocks)")
    return shrink(model, (x,), graph, {name: torch.tensor(keep)})


@pytest.mark.parametrize("keep", [[True, False, True, True], [False, True, True, False], [True, True, True, False]])
def test_a_list_with_an_entry_for_each_block_keeps_those_that_stay(keep):
    model, x = randomize(Model(Config())), torch.randn(4, 2)
    lists = copy.deepcopy(model.config)
    result = without(model, keep, x)
    assert (result.kind, result.notes) == ("eager", ())
    config = result.model.config
    assert config.layers == sum(keep)
    assert config.kinds == [kind for kind, stays in zip(lists.kinds, keep, strict=True) if stays]
    assert config.numbers == list(range(sum(keep)))
    assert config.bands == lists.bands
    again = built_again(result.model)
    assert again is not None
    assert torch.equal(again.eval()(x), result.model(x))
    assert vars(model.config) == vars(lists), "the given model stays as it was"


def test_a_list_that_is_as_long_by_chance_stays_where_shapes_say_so():
    config = Config()
    config.bands, config.kinds, config.numbers = (3, 5, 2, 4), ["plain"] * 5, []

    class Plain(Model):
        def forward(self, x):
            x = self.start(torch.cat([band(x[:, :1]) for band in self.bands], dim=1))
            for block in self.blocks:
                x = block(x, 0.0)
            return x

    model, x = randomize(Plain(config)), torch.randn(4, 2)
    result = without(model, [True, False, True, True], x)
    assert result.model.config.bands == (3, 5, 2, 4)
    assert (result.model.config.layers, result.notes) == (3, ())


missing = [n for n in ("transformers",) if n not in sys.modules and importlib.util.find_spec(n) is None]


@pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")
@pytest.mark.filterwarnings("ignore")
def test_a_decoder_of_transformers_is_saved_and_comes_back(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        config = transformers.Qwen2Config(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
            num_key_value_heads=2, use_sliding_window=True, sliding_window=3, max_window_layers=2,
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.Qwen2ForCausalLM(config).eval()
        given = {"input_ids": torch.randint(1, 32, (2, 9)), "use_cache": False}
        graph = analyze(model, (), given)
        keep = torch.tensor([True, False, True, True])
        result = shrink(model, (), graph, {"model.layers (blocks)": keep}, kwargs=given)
        types = [kind for kind, stays in zip(config.layer_types, keep.tolist(), strict=True) if stays]
        assert (result.kind, result.notes, result.model.config.layer_types) == ("eager", (), types)
        result.model.save_pretrained(tmp_path)
        again = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(again(**given).logits, result.model(**given).logits)
