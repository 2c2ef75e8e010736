"""A config that builds a model follows the cut where its settings can say the new sizes, and stays as it was where they can't."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from graph_zoo import randomize
from prunus.apply import shrink
from prunus.graph import analyze


class TinyConfig:
    def __init__(self) -> None:
        self.width, self.inner, self.layers, self.classes, self.unused = 8, None, 2, 3, 8


class Tiny(nn.Module):
    """Built from its config alone, as models of transformers are; ``inner`` not set means four times the width."""

    scaled: ClassVar[bool] = False

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.inner or 4 * config.width
        self.start = nn.Linear(5, config.width)
        self.ups = nn.ModuleList(nn.Linear(config.width, inner) for _ in range(config.layers))
        self.downs = nn.ModuleList(nn.Linear(inner, config.width) for _ in range(config.layers))
        self.end = nn.Linear(config.width, config.classes)
        self.factor = config.width**0.5 if self.scaled else 1.0

    def forward(self, x):
        x = self.start(x) * self.factor
        for up, down in zip(self.ups, self.downs, strict=True):
            x = x + down(torch.tanh(up(x)))
        return self.end(x)

    @classmethod
    def from_pretrained(cls, folder):
        raise NotImplementedError


class Scaled(Tiny):
    """Its constructor makes a constant out of the width."""

    scaled = True


def cut(model, names, *, uneven=False):
    x = torch.randn(2, 5)
    graph = analyze(model, (x,))
    chosen = [group for group in graph.groups if any(name in group.name for name in names)]
    keep = {
        group.name: torch.arange(group.size) < group.size // 2 - (uneven and i == 0) for i, group in enumerate(chosen)
    }
    return shrink(model, (x,), graph, keep), x


@pytest.mark.parametrize(
    ("names", "width", "inner"), [(["ups"], 8, 16), (["start"], 4, 32), (["start", "ups"], 4, None)]
)
def test_the_config_builds_the_pruned_sizes(names, width, inner):
    model = randomize(Tiny(TinyConfig()))
    shrunk, x = cut(model, names)
    config = shrunk.model.config
    again = Tiny(copy.deepcopy(config))
    again.load_state_dict(shrunk.model.state_dict())
    torch.testing.assert_close(again(x), shrunk.model(x))
    assert (config.width, config.inner, config.unused, config.layers) == (width, inner, 8, 2)
    assert model.config.width == 8
    assert model.config.inner is None


def test_layers_of_different_sizes_have_no_setting_and_the_config_stays():
    shrunk, _ = cut(randomize(Tiny(TinyConfig())), ["ups"], uneven=True)
    assert vars(shrunk.model.config) == vars(TinyConfig())
    assert shrunk.kind == "eager"
    assert "keep it as a bundle" in shrunk.notes[0]


def test_a_constant_that_the_constructor_makes_of_a_size_keeps_the_config_as_it_was():
    shrunk, _ = cut(randomize(Scaled(TinyConfig())), ["start"])
    assert vars(shrunk.model.config) == vars(TinyConfig())
    assert "keep it as a bundle" in shrunk.notes[0]


@pytest.mark.parametrize(("divides", "follows"), [(2, True), (3, False)])
def test_a_config_that_does_not_allow_the_sizes_is_left_as_it_was(monkeypatch, divides, follows):
    def validate(config):
        if config.width % divides and config.width != 8:
            raise ValueError(f"the width {config.width} is not a multiple of {divides}")

    monkeypatch.setattr(TinyConfig, "validate", validate, raising=False)
    small, _ = cut(randomize(Tiny(TinyConfig())), ["start"])
    assert small.model.start.out_features == 4
    assert small.model.config.width == (4 if follows else 8)
    assert any("no setting of its config" in note for note in small.notes) is not follows
