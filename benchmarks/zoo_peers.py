"""What does torch-pruning make of the models of the zoo, each with the settings that its own examples document?

Usage:
    python benchmarks/zoo_peers.py run --suite torchvision --out build/peer.jsonl [--match resnet] [--seconds 180]
    python benchmarks/zoo_peers.py one SUITE NAME
    python benchmarks/zoo_page.py peer build/zoo.jsonl build/peer.jsonl

Same models, inputs, steps and row format as ``zoo.py``; every model has a process of its own, and the same limit of processor
seconds. torch-pruning gets what its examples give it by hand: which layers to leave whole, heads, fused projections, an output
transform, a pruner for Swin's patch merging, and the attributes that are set anew afterwards. Where it has no example for a model, the nearest one is carried over by the
names of the attention's attributes; the column ``settings`` says which. Layers that make the model's outputs are always named to it.
Unlike prunus, its examples narrow what a headless transformer returns, and that counts in its favour in ``lost``.
Models that ``zoo.py`` analyses on the meta device have real weights here, because torch-pruning needs them.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRUNING_RATIO = 0.5


@dataclass
class Wiring:
    """What a user hands to torch-pruning, and what they mend by hand after the cut."""

    settings: str
    options: dict[str, Any] = field(default_factory=dict)
    ignored: list[Any] = field(default_factory=list)
    mend: Callable[[Any], None] = lambda pruner: None


def main() -> None:
    """Parse and dispatch."""
    os.environ["TIMM_FUSED_ATTN"] = "0"  # as its timm example does, before timm is imported
    from zoo import arguments_of, one_model, run_suite

    arguments = arguments_of(seconds=180)
    if arguments.command == "one":
        print("RESULT " + json.dumps(one_model(_steps, arguments.suite, arguments.name, arguments.debug)), flush=True)
    else:
        _warm_up()
        run_suite(arguments, _steps)


def _steps(row: dict[str, Any]) -> None:
    warnings.simplefilter("ignore")
    import torch
    from zoo_models import load

    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = load(row["suite"], row["name"])
    if any(p.device.type == "meta" for p in case.model.parameters()):
        case.model, case.inputs = case.build(), _real(case.inputs)
    model = case.model.eval()
    _drop_training_heads(row["name"], model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    before = sum(p.numel() for p in model.parameters())
    row["parameters"] = before
    inputs, kwargs = _one_way(model, *case.inputs(1))  # its examples trace one example

    row["stage"] = "forward of the dense model"
    with torch.no_grad():
        shapes = [leaf.shape for leaf in _leaves(model(*inputs, **kwargs))]

    row["stage"] = "settings"
    wiring = _wiring(row["suite"], model)
    wiring.ignored += [*_named_heads(model), *_makes_outputs(model, inputs, kwargs)]
    row["settings"] = wiring.settings

    row["stage"] = "analyze"
    if before < 1e6:  # small ones: leave torch's own first-call costs out, as zoo.py does
        _pruner(model, inputs, kwargs, wiring)
    start = time.process_time()
    pruner = _pruner(model, inputs, kwargs, wiring)
    row["analyze_seconds"] = round(time.process_time() - start, 2)

    row["stage"] = "shrink"
    start = time.process_time()
    row["groups"] = 0
    for group in pruner.step(interactive=True):
        group.prune()
        row["groups"] += 1
    wiring.mend(pruner)
    row["shrink_seconds"] = round(time.process_time() - start, 2)
    row["lost"] = round(1 - sum(p.numel() for p in model.parameters()) / before, 4)
    row["kind"] = "eager"

    row["stage"] = "forward"
    case.loss(model, 2)
    with torch.no_grad():
        row["same_output_shapes"] = shapes == [leaf.shape for leaf in _leaves(model(*inputs, **kwargs))]
    row["stage"] = "train step"
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    case.loss(model, 2).backward()
    optimizer.step()
    model.eval()
    row["stage"] = "another batch size"
    case.loss(model, 3)


def _pruner(model: Any, inputs: Any, kwargs: Any, wiring: Wiring) -> Any:
    import torch_pruning

    return torch_pruning.pruner.MetaPruner(
        model,
        kwargs or inputs,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="mean"),
        pruning_ratio=PRUNING_RATIO,
        ignored_layers=wiring.ignored,
        output_transform=_leaves,
        **wiring.options,
    )


def _one_way(model: Any, inputs: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return inputs all by name where some are: torch-pruning takes a tuple or a mapping, not both."""
    if not (inputs and kwargs):
        return inputs, kwargs
    return (), dict(inspect.signature(model.forward).bind(*inputs, **kwargs).arguments)


def _warm_up() -> None:
    """Cut a small net once, so that no model pays for what happens on the first call."""
    from torch import nn, randn

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).eval()
    _pruner(model, (randn(1, 3, 8, 8),), {}, Wiring("", ignored=[model[2]])).step()


def _real(inputs: Any) -> Any:
    """Return inputs with values in place of those on the meta device."""
    import torch
    from torch.utils import _pytree as pytree

    def make(n: int) -> Any:
        return pytree.tree_map_only(
            torch.Tensor,
            lambda t: torch.randn(t.shape) if t.is_floating_point() else torch.ones(t.shape, dtype=t.dtype),
            inputs(n),
        )

    return make


def _drop_training_heads(name: str, model: Any) -> None:
    """Its example builds GoogLeNet and Inception without the heads that only training runs."""
    if name in ("googlenet", "inception_v3") and hasattr(model, "aux_logits"):
        model.aux_logits = False
        for head in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, head):
                setattr(model, head, None)


def _leaves(out: Any) -> list[Any]:
    """Return the tensors that autograd can walk back from."""
    from torch import Tensor
    from torch.utils import _pytree as pytree

    if hasattr(out, "to_tuple"):
        out = out.to_tuple()
    leaves = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return [leaf for leaf in leaves if leaf.grad_fn is not None] or leaves


def _named_heads(model: Any) -> Iterator[Any]:
    """Yield the layers that its examples leave whole by name or by the number of classes."""
    from torch import nn

    detection = ("cls_logits", "bbox_pred", "bbox_reg", "bbox_ctrness")
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if (
            (isinstance(module, nn.Linear) and module.out_features == 1000)
            or name in detection
            or path in ("lm_head", "classifier", "pooler", "segmentation_head.0")
            or (name == "fpn" and hasattr(model, "rpn_head"))
        ):
            yield module


def _makes_outputs(model: Any, inputs: Any, kwargs: Any) -> list[Any]:
    """Return the convolutions and linear layers whose results are the model's outputs: a user would name them."""
    import torch
    from torch import nn

    made: dict[int, tuple[Any, Any]] = {}  # with the result, because an address is unique only while it lives

    def note(module: Any, given: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            made[out.untyped_storage().data_ptr()] = module, out

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        out = model(*inputs, **kwargs)
    for hook in hooks:
        hook.remove()
    pointers = [leaf.untyped_storage().data_ptr() for leaf in _leaves(out)]
    return [made[pointer][0] for pointer in pointers if pointer in made]


def _wiring(suite: str, model: Any) -> Wiring:
    """Return the settings that an example documents for this model, or for the one that it resembles most."""
    if suite == "transformers":
        return _transformers(model)
    if suite == "timm":
        return _timm(model)
    if suite == "diffusers":
        return _diffusers(model)
    if suite == "segmentation":  # encoders may be timm's
        found = _timm(model)
        found.settings = "by analogy: prune_timm_models, attention" if found.options else "defaults (no example)"
        return found
    if suite == "torchvision" and hasattr(model, "hidden_dim") and hasattr(model, "conv_proj"):
        return _torchvision_vit(model)
    return Wiring("documented: torchvision_pruning" if suite == "torchvision" else "defaults (no example)")


def _torchvision_vit(model: Any) -> Wiring:
    def mend(pruner: Any) -> None:
        model.hidden_dim = model.conv_proj.out_channels

    options = {"round_to": model.encoder.layers[0].num_heads}
    return Wiring("documented: torchvision_pruning, ViT", options, mend=mend)


def _diffusers(model: Any) -> Wiring:
    """What ddpm_prune.py of its author's Diff-Pruning mends after the cut, and the heads of the attention, which it names as a comment."""
    from diffusers.models.resnet import Downsample2D, Upsample2D

    def mend(pruner: Any) -> None:
        for module in model.modules():
            if isinstance(module, Downsample2D | Upsample2D) and module.conv is not None:
                _set(module, channels=module.conv.in_channels, out_channels=module.conv.out_channels)

    attentions = [m for m in model.modules() if all(hasattr(m, name) for name in ("heads", "to_q", "to_k", "to_v"))]
    num_heads = {projection: m.heads for m in attentions for projection in (m.to_q, m.to_k, m.to_v)}
    latent = [model.quant_conv] if hasattr(model, "quant_conv") else []  # what it makes is split into mean and variance
    return Wiring("documented: Diff-Pruning", {"num_heads": num_heads} if num_heads else {}, latent, mend)


def _timm(model: Any) -> Wiring:
    """Heads of the fused projection, as in its timm examples, which set num_heads, head_dim and the reshape's width afterwards."""
    fused = {
        module: getattr(module, name)
        for module in model.modules()
        for name in ("qkv", "qkv_proj")
        if hasattr(module, "num_heads") and hasattr(module, name)
    }
    if not fused:
        return Wiring("documented: prune_timm_models")

    def mend(pruner: Any) -> None:
        for attention, projection in fused.items():
            attention.num_heads = pruner.num_heads[projection]
            width = projection.weight.shape[0] // 3
            _set(attention, head_dim=width // attention.num_heads, attn_dim=width)

    num_heads = {projection: attention.num_heads for attention, projection in fused.items()}
    return Wiring("documented: prune_timm_models, attention", {"num_heads": num_heads}, mend=mend)


def _set(module: Any, **values: int) -> None:
    for name, value in values.items():
        if hasattr(module, name):
            setattr(module, name, value)


def _transformers(model: Any) -> Wiring:
    kind = type(model).__name__
    named = {  # what the examples call query, key and value, newer classes call q_proj, k_proj and v_proj
        names: [m for m in model.modules() if all(hasattr(m, name) for name in names)]
        for names in (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"))
    }
    split, projected = named.values()
    vision = any(hasattr(model.config, name) for name in ("patch_size", "patch_sizes")) or "swin" in kind.lower()
    for names, attentions in named.items():
        attentions = [m for m in attentions if hasattr(m, "num_attention_heads")]
        if attentions and (attentions[0] in split or vision):
            return _query_key_value(kind, attentions, names, vision)
    if projected or any(hasattr(m, "qkv_proj") for m in model.modules()):
        return _causal(kind, model, projected)
    return Wiring("defaults (no example)")


def _query_key_value(kind: str, attentions: list[Any], names: tuple[str, ...], vision: bool) -> Wiring:
    """BERT prunes whole heads; ViT and Swin prune inside each head."""
    documented = {"BertModel": "prune_hf_bert", "ViTModel": "prune_hf_vit", "SwinModel": "prune_hf_swin"}
    num_heads = {getattr(m, name): m.num_attention_heads for m in attentions for name in names}
    options: dict[str, Any] = {"num_heads": num_heads}
    example = documented.get(kind)
    if example is None:
        example = "prune_hf_swin" if "swin" in kind.lower() else "prune_hf_vit" if vision else "prune_hf_bert"
    if example == "prune_hf_bert":
        options |= {"prune_head_dims": False, "prune_num_heads": True, "head_pruning_ratio": PRUNING_RATIO}
    if example == "prune_hf_swin":
        options |= _swin()

    def mend(pruner: Any) -> None:
        for m in attentions:
            query = getattr(m, names[0])
            m.num_attention_heads = pruner.num_heads[query]
            size = query.out_features // m.num_attention_heads
            _set(m, attention_head_size=size, head_dim=size, all_head_size=query.out_features)

    return Wiring(f"{'documented' if kind in documented else 'by analogy'}: {example}", options, mend=mend)


def _swin() -> dict[str, Any]:
    """A pruner for patch merging, which lays four neighbours' channels side by side: its linear layer reads each channel four times."""
    import torch_pruning
    from torch import nn
    from transformers.models.swin.modeling_swin import SwinPatchMerging

    class PatchMerging(torch_pruning.BasePruningFunc):  # type: ignore[misc, name-defined]
        def prune_out_channels(self, layer: Any, idxs: Any) -> Any:
            torch_pruning.prune_linear_out_channels(layer.reduction, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Any) -> Any:
            dim = self.get_in_channels(layer)
            every = [neighbour * dim + channel for neighbour in range(4) for channel in idxs]
            torch_pruning.prune_linear_in_channels(layer.reduction, every)
            torch_pruning.prune_layernorm_out_channels(layer.norm, every)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.reduction.out_features)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.reduction.in_features // 4)

    return {
        "customized_pruners": {SwinPatchMerging: PatchMerging()},
        "root_module_types": (nn.Linear, nn.LayerNorm, SwinPatchMerging),
    }


def _causal(kind: str, model: Any, projected: list[Any]) -> Wiring:
    """Whole heads go and their width stays, so that rotary embeddings need no change; a fused gate has two channel groups."""
    documented = kind in ("LlamaForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM")
    config = model.config
    heads = getattr(projected[0], "num_heads", None) if projected else None
    heads = heads or config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    fused = [m for m in model.modules() if hasattr(m, "qkv_proj")]
    num_heads = {m.q_proj: heads for m in projected}
    num_heads |= {layer: kv_heads for m in projected for layer in (m.k_proj, m.v_proj)}
    num_heads |= {m.qkv_proj: heads for m in fused}
    options: dict[str, Any] = {
        "num_heads": num_heads,
        "prune_num_heads": True,
        "prune_head_dims": False,
        "head_pruning_ratio": PRUNING_RATIO,
        "out_channel_groups": {m.gate_up_proj: 2 for m in model.modules() if hasattr(m, "gate_up_proj")},
        "round_to": 4,
    }

    def mend(pruner: Any) -> None:
        for m in [*projected, *fused]:
            width = m.q_proj.out_features if hasattr(m, "q_proj") else m.qkv_proj.out_features // 3
            left = width // m.head_dim
            left_kv = left if heads == kv_heads else kv_heads
            _set(m, hidden_size=width, embed_dim=width, inner_dim=width, num_heads=left, num_attention_heads=left)
            _set(m, num_key_value_heads=left_kv, num_key_value_groups=left // left_kv)
            config.num_attention_heads = left
            if heads == kv_heads:
                config.num_key_value_heads = left
        if hasattr(model, "lm_head"):
            config.hidden_size = model.lm_head.in_features

    return Wiring(f"{'documented' if documented else 'by analogy'}: prune_llm", options, mend=mend)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
