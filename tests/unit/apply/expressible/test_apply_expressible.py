"""What a config can say is found out by building, and what is cut by it is what ``from_pretrained`` builds."""

from __future__ import annotations

import copy
import functools
import warnings
from fractions import Fraction

import pytest
import torch
from torch import nn

from graph_zoo import randomize
from prunus.apply import expressible, shrink
from prunus.apply.classes.built_smaller import cut_config
from prunus.apply.classes.config_settings import built_shapes, shapes_of
from prunus.core.errors import ModelError
from prunus.graph import analyze, certify

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

IDS = {"input_ids": torch.arange(24).view(2, 12) % 31 + 3}
SIZES = {"vocab_size": 37, "max_position_embeddings": 32}
BERT = {**SIZES, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
LLAMA = {**BERT, "num_attention_heads": 6, "num_key_value_heads": 3, "use_cache": False}
GPT2 = {"vocab_size": 37, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32, "use_cache": False}
MODELS = {
    "bert": ("BertForSequenceClassification", BERT),
    "llama": ("LlamaForCausalLM", LLAMA),
    "gpt2": ("GPT2LMHeadModel", GPT2),
}


def built(name: str) -> nn.Module:
    kind, options = MODELS[name]
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**options))
    constants = {name: value.clone() for name, value in model.named_buffers()}
    model = randomize(model)
    for name, value in constants.items():  # a constructor makes them
        model.get_buffer(name).copy_(value)
    return model


@functools.cache
def known(name: str, kinds: tuple[str, ...] | None = None):
    model = built(name)
    graph = certify(model, (), analyze(model, (), IDS), kwargs=IDS)
    return model, expressible(model, (), graph, IDS, kinds=kinds)


def masks(graph, share, *, joints=None):
    draw = torch.Generator().manual_seed(3)
    chosen = [name for joint in joints or graph.joints for name in joint.groups]
    keep = {}
    for group in graph.groups:
        if group.name in chosen:
            keep[group.name] = torch.zeros(group.size, dtype=torch.bool)
            keep[group.name][torch.randperm(group.size, generator=draw)[: int(group.size * share)]] = True
    return keep


@pytest.mark.parametrize("name", MODELS)
def test_every_step_of_every_joint_builds_the_shapes_of_its_groups(name):
    model, graph = known(name)
    assert len(graph.joints) >= 2
    assert all(joint.n_steps > 1 for joint in graph.joints)
    assert graph.solution is not None
    from prunus.graph.solver.axis_positions import left_of

    for joint in graph.joints:
        for step in range(1, joint.n_steps + 1):
            counts = {
                g.name: int(g.size * Fraction(step, joint.n_steps)) for g in graph.groups if g.name in joint.groups
            }
            config = cut_config(model.config, graph, counts)
            sizes = graph.solution.sizes(counts)
            states = graph.solution.solver.states
            wanted = {n: tuple(left_of(a, sizes) for a in states[n]) for n in shapes_of(model)}
            assert built_shapes(type(model), config) == wanted


@pytest.mark.parametrize("name", MODELS)
def test_a_cut_by_all_settings_comes_back_with_the_same_outputs(name, tmp_path):
    model, graph = known(name)
    small = shrink(model, (), graph, masks(graph, Fraction(2, 3)), kwargs=IDS)
    assert (small.kind, small.notes) == ("eager", ())
    small.model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**IDS).logits, small.model(**IDS).logits)
    whole = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in again.parameters()) < 0.75 * whole


def test_the_outputs_are_those_of_the_traced_computation_on_the_same_weights():
    model, graph = known("gpt2")
    keep = masks(graph, Fraction(1, 3))
    small, traced = (shrink(model, (), graph, keep, kwargs=IDS, prefer=kind).model for kind in ("eager", "graph"))
    assert small.config.n_embd == 8
    assert small.config.n_head == 1
    with torch.no_grad():
        torch.testing.assert_close(small.double()(**IDS).logits, traced.double()(**IDS).logits)


def test_a_part_of_every_head_takes_the_scale_of_the_scores_into_the_weights():
    model, graph = known("gpt2", ("width", "head_dim"))
    assert [joint.name for joint in graph.joints] == ["n_embd"]
    small = shrink(model, (), graph, masks(graph, Fraction(1, 2)), kwargs=IDS)
    assert small.folded
    assert small.model.config.n_head == 3
    assert small.model.config.n_embd == 12


def test_heads_whose_number_is_bound_to_the_width_go_only_with_it():
    _, graph = known("bert", ("head", "mlp"))
    assert {joint.name for joint in graph.joints} == {"intermediate_size"}
    reasons = {frozen.reason for frozen in graph.frozen if "attention.self.query" in frozen.name}
    assert any("hidden_size with num_attention_heads" in reason for reason in reasons)
    _, graph = known("bert")
    assert {"intermediate_size", "hidden_size with num_attention_heads"} == {joint.name for joint in graph.joints}


def test_the_heads_of_grouped_queries_are_two_numbers():
    _, graph = known("llama", ("head",))
    assert {joint.name for joint in graph.joints} == {
        "num_attention_heads",
        "num_attention_heads with num_key_value_heads",
    }


def test_a_size_left_to_another_setting_is_said_first():
    model, graph = known("gpt2", ("mlp",))
    (joint,) = graph.joints
    assert model.config.n_inner is None
    assert joint.name == "n_inner"
    assert joint.said
    small = shrink(model, (), graph, masks(graph, Fraction(1, 2)), kwargs=IDS).model
    assert small.config.n_inner == 48
    assert small.transformer.h[1].mlp.c_fc.weight.shape == (24, 48)


def test_groups_that_do_not_keep_the_same_share_are_said_by_no_config():
    model, graph = known("bert", ("mlp",))
    counts = {name: 10 + place for place, name in enumerate(graph.joints[0].groups)}
    assert cut_config(model.config, graph, counts) is None
    assert cut_config(model.config, graph, dict.fromkeys(counts, 10)).intermediate_size == 10


def test_what_is_no_parameter_comes_along():
    model, graph = known("gpt2", ("mlp",))
    model = copy.deepcopy(model)
    model.generation_config.max_new_tokens = 7
    model.transformer.wte.weight.requires_grad_(False)
    model.train()
    small = shrink(model, (), graph, masks(graph, Fraction(1, 2)), kwargs=IDS).model
    assert small.generation_config.max_new_tokens == 7
    assert small.training
    assert not small.transformer.wte.weight.requires_grad
    assert small.transformer.wpe.weight.requires_grad


def test_a_model_without_a_config_is_refused():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(2, 3)
    with pytest.raises(ModelError, match="Sequential isn't built from a config"):
        expressible(model, (x,), analyze(model, (x,)))


def test_a_config_that_builds_another_model_is_refused():
    model = built("bert")
    graph = analyze(model, (), IDS)
    model.config.intermediate_size = 21
    with pytest.raises(ModelError, match="other shapes"):
        expressible(model, (), graph, IDS)
