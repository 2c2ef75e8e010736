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
from prunus.apply.classes.configs import built_again
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


def test_a_list_that_is_as_long_by_chance_stays_where_only_the_constructor_reads_it():
    class LimitedConfig(Config):
        def __init__(self) -> None:
            super().__init__()
            self.kinds, self.numbers, self.limits = ["plain"] * 5, [], (-9.0, 0.0, 0.0, 9.0)

    class Limited(Model):
        def __init__(self, config: LimitedConfig) -> None:
            super().__init__(config)
            self.limits = config.limits

        def forward(self, x):
            x = self.start(torch.cat([band(x[:, :1]) for band in self.bands], dim=1))
            for block in self.blocks:
                x = block(x, 0.0)
            return x.clamp(self.limits[0], self.limits[3])

    model, x = randomize(Limited(LimitedConfig())), torch.randn(4, 2)
    result = without(model, [True, False, True, True], x)
    assert (result.kind, result.notes) == ("eager", ())
    assert (result.model.config.layers, result.model.config.limits) == (3, (-9.0, 0.0, 0.0, 9.0))
    again = built_again(result.model)
    assert again is not None
    assert torch.equal(again.eval()(x), result.model(x))


class SomeConfig(Config):
    """Its wide blocks are numbered; and sizes that could be numbers of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.numbers, self.bands = [], [], (1, 3)
        self.full_layers = [0, 3]


class Numbered(Model):
    """The constructor reads the numbers, and forward does."""

    def __init__(self, config: SomeConfig, *, in_forward: bool = False) -> None:
        nn.Module.__init__(self)
        self.config, self.in_forward = config, in_forward
        self.bands = nn.ModuleList(nn.Linear(1, size) for size in config.bands)
        self.start = nn.Linear(sum(config.bands), config.width)
        full = Config()
        full.kinds = ["wide" if place in config.full_layers else "plain" for place in range(config.layers)]
        self.blocks = nn.ModuleList(Block(full, place) for place in range(config.layers))

    def forward(self, x):
        x = self.start(torch.cat([band(x[:, :1]) for band in self.bands], dim=1))
        for number, block in enumerate(self.blocks):
            x = block(x, 0.5 if self.in_forward and number in self.config.full_layers else 0.0)
        return x


class InForward(Numbered):
    def __init__(self, config: SomeConfig) -> None:
        super().__init__(config, in_forward=True)


@pytest.mark.parametrize("kind", [Numbered, InForward])
@pytest.mark.parametrize(
    ("keep", "left"),
    [([True, False, True, True], [0, 2]), ([False, True, True, True], [2]), ([True, True, False, False], [0]),
     ([False, True, True, False], [])],
)  # fmt: skip
def test_a_list_that_numbers_some_blocks_numbers_those_that_stay(kind, keep, left):
    model, x = randomize(kind(SomeConfig())), torch.randn(4, 2)
    result = without(model, keep, x)
    config = result.model.config
    assert (result.kind, result.notes) == ("eager", ())
    assert (config.layers, config.full_layers, config.bands) == (sum(keep), left, (1, 3))
    again = built_again(result.model)
    assert again is not None
    assert torch.equal(again.eval()(x), result.model(x))
    assert model.config.full_layers == [0, 3], "the given model stays as it was"


def test_a_list_that_is_called_otherwise_follows_where_the_outputs_say_so():
    class WideConfig(SomeConfig):
        def __init__(self) -> None:
            super().__init__()
            self.wide = self.full_layers

    class Reader(InForward):
        def forward(self, x):
            self.config.full_layers = self.config.wide
            return super().forward(x)

    model, x = randomize(Reader(WideConfig())), torch.randn(4, 2)
    assert without(model, [True, False, True, True], x).model.config.wide == [0, 2]


def test_rising_sizes_that_are_called_like_layers_stay_where_the_config_builds_nothing_with_others():
    class NamedConfig(SomeConfig):
        def __init__(self) -> None:
            super().__init__()
            self.layer_sizes = (1, 2)

    class Sized(Numbered):
        def __init__(self, config: NamedConfig) -> None:
            super().__init__(config)
            self.sized = nn.ModuleList(nn.Linear(1, size) for size in config.layer_sizes)

        def forward(self, x):
            return super().forward(x) + sum(layer(x[:, :1]).sum(1, keepdim=True) for layer in self.sized)

    model, x = randomize(Sized(NamedConfig())), torch.randn(4, 2)
    result = without(model, [False, True, True, True], x)
    assert (result.model.config.layer_sizes, result.model.config.full_layers) == ((1, 2), [2])
    assert result.notes == ()


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


@pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("drop", "left"), [(0, [0, 2]), (1, [2]), (3, [1])])
def test_the_layers_of_global_attention_of_a_sam_keep_their_numbers(drop, left):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        config = transformers.SamVisionConfig(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=4, window_size=4,
            global_attn_indexes=[1, 3], mlp_dim=24, output_channels=8,
        )  # fmt: skip
        model = randomize(transformers.SamVisionModel(config)).eval()
        given = {"pixel_values": torch.randn(1, 3, 32, 32)}
        keep = torch.arange(4) != drop
        result = shrink(model, (), analyze(model, (), given), {"vision_encoder.layers (blocks)": keep}, kwargs=given)
        assert (result.kind, result.notes, result.model.config.global_attn_indexes) == ("eager", (), left)
