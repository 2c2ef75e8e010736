"""Which models are in the zoo, how is each built with random weights, and what does it take?"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from zoo_libraries import DIFFUSERS, GEOMETRIC, SEGMENTATION

__all__ = ["Case", "load", "names"]

META_ABOVE = 150_000_000
_LIBRARIES = {"diffusers": DIFFUSERS, "segmentation": SEGMENTATION, "geometric": GEOMETRIC}


@dataclass
class Case:
    """A model and how to feed it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]
    model: nn.Module

    def loss(self, model: nn.Module, n: int) -> Tensor:
        """Return a number that depends on every floating output, for ``n`` examples.

        Infinite entries are left out, since masked scores are infinite on purpose; not a number is an error.
        """
        torch.manual_seed(1)
        args, kwargs = self.inputs(n)
        out = model(*args, **kwargs)
        if hasattr(out, "to_tuple"):
            out = out.to_tuple()
        leaves = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        assert not any(leaf.isnan().any() for leaf in leaves if not leaf.is_meta), "an output is not a number"
        return torch.stack(
            [leaf.float().masked_fill(leaf.isinf(), 0.0).square().mean() for leaf in leaves if leaf.numel()]
        ).sum()


def names(suite: str) -> list[str]:
    """Return the names of a suite."""
    if suite in _LIBRARIES:
        return sorted(_LIBRARIES[suite])
    return {
        "torchvision": _torchvision_names,
        "timm": _timm_names,
        "transformers": lambda: sorted(TRANSFORMERS),
        "torch": lambda: sorted(TORCH),
    }[suite]()


def load(suite: str, name: str) -> Case:
    """Return one model; a very large one lies on the meta device."""
    if suite in _LIBRARIES:
        return _case(*_LIBRARIES[suite][name])
    return {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers, "torch": _torch}[suite](name)


def _case(build: Callable[[], nn.Module], shape: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]) -> Case:
    with torch.device("meta"):
        try:
            size = sum(p.numel() for p in build().parameters())
        except Exception:
            size = 0
    if size > META_ABOVE:
        with torch.device("meta"):
            model = build()

        def meta_inputs(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return pytree.tree_map_only(Tensor, lambda t: t.to("meta"), shape(n))

        return Case(build, meta_inputs, model)
    return Case(build, shape, build())


def _images(size: int, frames: int | None = None) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def make(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        shape = (n, 3, size, size) if frames is None else (n, 3, frames, size, size)
        return (torch.randn(shape),), {}

    return make


# --- torchvision -----------------------------------------------------------------------------


@functools.cache
def import_torchvision() -> Any:
    """Import torchvision where its compiled operators don't load: their schemas are enough for tracing and for these models."""
    if torch.version.cuda is not None:
        import torchvision

        return torchvision
    library = torch.library.Library("torchvision", "DEF")
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    pooled = "(Tensor input, Tensor rois, float scale, int height, int width) -> (Tensor, Tensor)"
    aligned = "(Tensor input, Tensor rois, float scale, int height, int width, int ratio, bool aligned) -> Tensor"
    anything = "(Tensor a) -> Tensor"
    schemas = {
        "nms": boxes,
        "qnms": boxes,
        "roi_align": aligned,
        "qroi_align": aligned,
        "roi_pool": pooled,
        "ps_roi_pool": pooled,
    }
    schemas |= dict.fromkeys(("ps_roi_align", "deform_conv", "_deform_conv", "box_iou_rotated"), anything)
    schemas |= {
        f"_{name}_backward": anything
        for name in ("ps_roi_align", "ps_roi_pool", "roi_align", "roi_pool", "deform_conv")
    }
    for name, schema in schemas.items():
        with contextlib.suppress(RuntimeError):  # there already
            library.define(name + schema)
    import torchvision

    torchvision._keep_library = library
    return torchvision


def _torchvision_names() -> list[str]:
    models = import_torchvision().models
    return [name for name in models.list_models() if not name.startswith("quantized") and "raft" not in name]


def _torchvision(name: str) -> Case:
    models = import_torchvision().models
    builder = models.get_model_builder(name)
    module = builder.__module__
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}
    frames, size = None, 64
    if ".video" in module:
        frames, size = (16, 224) if name.startswith(("mvit", "s3d")) else (8, 64)
    elif ".detection" in module:
        return _case(lambda: _Backbone(builder(**options)), _images(300 if name.startswith("ssd") else 128))
    elif name.startswith(("vit", "maxvit", "swin")):
        size = 224
    elif name.startswith("inception"):
        size = 299
    return _case(lambda: builder(**options), _images(size, frames))


class _Backbone(nn.Module):
    """A detector's traceable part: its backbone and the heads that run on feature maps."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.rpn_head = detector.rpn.head if hasattr(detector, "rpn") else None
        self.head = getattr(detector, "head", None)

    def forward(self, x: Tensor) -> Any:
        features = self.backbone(x)
        maps = list(features.values()) if isinstance(features, dict) else [features]
        if self.rpn_head is not None:
            return self.rpn_head(maps)
        return self.head(maps) if self.head is not None else maps


# --- timm ------------------------------------------------------------------------------------


def _timm_names() -> list[str]:
    import_torchvision()
    import timm

    chosen = []
    for module in timm.list_modules():
        found = timm.list_models(module=module)
        if found:
            chosen.append(_smallest(found))
    return chosen


def _smallest(found: list[str]) -> str:
    """Return a small member of a family without building them all: by the words that families use for size."""
    order = (
        "atto",
        "femto",
        "pico",
        "nano",
        "xxs",
        "xx_small",
        "xs",
        "tiny",
        "_t",
        "_s",
        "small",
        "b0",
        "_18",
        "18",
        "26",
    )
    for word in order:
        for name in found:
            if word in name:
                return name
    return found[0]


def _timm(name: str) -> Case:
    import_torchvision()
    import timm

    config = timm.get_pretrained_cfg(name)
    size = (config.input_size if config is not None else (3, 224, 224))[-1]
    return _case(
        lambda: timm.create_model(name, pretrained=False),
        _images(96 if name.startswith("convmixer") else size if 0 < size <= 256 else 224),
    )


# --- transformers ----------------------------------------------------------------------------

VOCABULARY = 99


def _tokens(**extra: Any) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def make(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"input_ids": torch.randint(3, VOCABULARY, (n, 12)), **extra}

    return make


def _pairs(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {
        "input_ids": torch.randint(3, VOCABULARY, (n, 12)),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (n, 7)),
    }


def _pixels(size: int = 32) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    return lambda n: ((), {"pixel_values": torch.randn(n, 3, size, size)})


def _wave(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {"input_values": torch.randn(n, 1600)}


def _speech(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {"input_features": torch.randn(n, 16, 64), "decoder_input_ids": torch.randint(3, VOCABULARY, (n, 7))}


_BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
_GQA = {**_BASE, "num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0}
_SEQ2SEQ = {
    "vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64, "use_cache": False, "pad_token_id": 0, "decoder_start_token_id": 2,
}  # fmt: skip
_VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
_MOE = {**_GQA, "moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}

TRANSFORMERS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "albert": ("AlbertModel", {**_BASE, "embedding_size": 32}, _tokens()),
    "bart": ("BartModel", _SEQ2SEQ, _pairs),
    "beit": ("BeitModel", _VISION, _pixels()),
    "bert": ("BertModel", _BASE, _tokens()),
    "bloom": ("BloomForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4, "use_cache": False}, _tokens()),
    "clip_vision": ("CLIPVisionModel", _VISION, _pixels()),
    "codegen": ("CodeGenForCausalLM", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "use_cache": False}, _tokens()),
    "convbert": ("ConvBertModel", {**_BASE, "embedding_size": 64}, _tokens()),
    "convnext": ("ConvNextModel", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}, _pixels(64)),
    "convnextv2": ("ConvNextV2Model", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}, _pixels(64)),
    "data2vec_text": ("Data2VecTextModel", {**_BASE, "max_position_embeddings": 80}, _tokens()),
    "deberta": ("DebertaModel", {**_BASE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _tokens()),
    "deberta_v2": ("DebertaV2Model", {**_BASE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _tokens()),
    "deit": ("DeiTModel", _VISION, _pixels()),
    "dinov2": ("Dinov2Model", _VISION, _pixels()),
    "distilbert": ("DistilBertModel", {"vocab_size": VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 64}, _tokens()),
    "electra": ("ElectraModel", {**_BASE, "embedding_size": 32}, _tokens()),
    "ernie": ("ErnieModel", _BASE, _tokens()),
    "falcon": ("FalconForCausalLM", {**_BASE, "use_cache": False, "new_decoder_architecture": True, "num_kv_heads": 2}, _tokens()),
    "fnet": ("FNetModel", _BASE, _tokens()),
    "gemma": ("GemmaForCausalLM", {**_GQA, "head_dim": 16}, _tokens()),
    "gemma2": ("Gemma2ForCausalLM", {**_GQA, "head_dim": 16}, _tokens()),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False}, _tokens()),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False}, _tokens()),
    "gpt_neo": ("GPTNeoForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64, "use_cache": False}, _tokens()),
    "gpt_neox": ("GPTNeoXForCausalLM", {**_BASE, "use_cache": False}, _tokens()),
    "gptj": ("GPTJForCausalLM", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "use_cache": False}, _tokens()),
    "granite": ("GraniteForCausalLM", _GQA, _tokens()),
    "hubert": ("HubertModel", {**_BASE, "mask_time_prob": 0.0, "conv_dim": [32, 32], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}, _wave),
    "ibert": ("IBertModel", _BASE, _tokens()),
    "levit": ("LevitModel", {"image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}, _pixels(64)),
    "llama": ("LlamaForCausalLM", _GQA, _tokens()),
    "m2m_100": ("M2M100Model", _SEQ2SEQ, _pairs),
    "mamba": ("MambaForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "use_cache": False}, _tokens()),
    "mamba2": ("Mamba2ForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "expand": 2, "use_cache": False, "chunk_size": 8}, _tokens()),
    "marian": ("MarianModel", _SEQ2SEQ, _pairs),
    "mbart": ("MBartModel", _SEQ2SEQ, _pairs),
    "mistral": ("MistralForCausalLM", _GQA, _tokens()),
    "mixtral": ("MixtralForCausalLM", _MOE, _tokens()),
    "mobilebert": ("MobileBertModel", {**_BASE, "embedding_size": 32, "intra_bottleneck_size": 32, "num_attention_heads": 4, "true_hidden_size": 32}, _tokens()),
    "mobilevit": ("MobileViTModel", {"image_size": 64, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 16, 16, 24, 32, 48, 64]}, _pixels(64)),
    "mpnet": ("MPNetModel", _BASE, _tokens()),
    "mpt": ("MptForCausalLM", {"vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "use_cache": False}, _tokens()),
    "nystromformer": ("NystromformerModel", {**_BASE, "num_landmarks": 4, "segment_means_seq_len": 12}, _tokens()),
    "olmo": ("OlmoForCausalLM", _GQA, _tokens()),
    "opt": ("OPTForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 128, "max_position_embeddings": 64, "word_embed_proj_dim": 64, "use_cache": False}, _tokens()),
    "pegasus": ("PegasusModel", _SEQ2SEQ, _pairs),
    "phi": ("PhiForCausalLM", {**_GQA, "partial_rotary_factor": 0.5}, _tokens()),
    "phi3": ("Phi3ForCausalLM", _GQA, _tokens()),
    "poolformer": ("PoolFormerModel", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}, _pixels(64)),
    "qwen2": ("Qwen2ForCausalLM", _GQA, _tokens()),
    "qwen2_moe": ("Qwen2MoeForCausalLM", {**_MOE, "shared_expert_intermediate_size": 64}, _tokens()),
    "qwen3": ("Qwen3ForCausalLM", {**_GQA, "head_dim": 16}, _tokens()),
    "regnet": ("RegNetModel", {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "groups_width": 8}, _pixels(64)),
    "rembert": ("RemBertModel", {**_BASE, "input_embedding_size": 32}, _tokens()),
    "resnet": ("ResNetModel", {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}, _pixels(64)),
    "roberta": ("RobertaModel", {**_BASE, "max_position_embeddings": 80}, _tokens()),
    "roformer": ("RoFormerModel", {**_BASE, "embedding_size": 64}, _tokens()),
    "segformer": ("SegformerModel", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}, _pixels(64)),
    "siglip_vision": ("SiglipVisionModel", _VISION, _pixels()),
    "squeezebert": ("SqueezeBertModel", {**_BASE, "embedding_size": 64}, _tokens()),
    "stablelm": ("StableLmForCausalLM", _GQA, _tokens()),
    "starcoder2": ("Starcoder2ForCausalLM", _GQA, _tokens()),
    "swin": ("SwinModel", {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, _pixels(64)),
    "t5": ("T5Model", {"vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "use_cache": False}, _pairs),
    "vit": ("ViTModel", _VISION, _pixels()),
    "vit_mae": ("ViTMAEModel", {**_VISION, "mask_ratio": 0.0}, _pixels()),
    "wav2vec2": ("Wav2Vec2Model", {**_BASE, "conv_dim": [32, 32], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0}, _wave),
    "whisper": ("WhisperModel", {**_SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 32}, _speech),
    "xglm": ("XGLMForCausalLM", {"vocab_size": VOCABULARY, "d_model": 64, "ffn_dim": 128, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 64, "use_cache": False}, _tokens()),
    "xlm_roberta": ("XLMRobertaModel", {**_BASE, "max_position_embeddings": 80}, _tokens()),
    "yolos": ("YolosModel", {**_VISION, "image_size": [32, 32], "num_detection_tokens": 4}, _pixels()),
}  # fmt: skip


def _transformers(name: str) -> Case:
    import_torchvision()  # transformers imports it when it is installed
    import transformers

    transformers.logging.set_verbosity_error()
    class_name, options, inputs = TRANSFORMERS[name]
    cls = getattr(transformers, class_name)
    accepted = {
        k: v
        for k, v in options.items()
        if k not in ("num_experts", "num_local_experts") or k in inspect.signature(cls.config_class.__init__).parameters
    }
    return _case(lambda: cls(cls.config_class(**accepted)), inputs)


# --- torch's own layers ------------------------------------------------------------------------


class _Recurrent(nn.Module):
    def __init__(self, cell: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 24)
        self.cell = cell(24, 32, batch_first=True, **options)
        self.head = nn.Linear(64 if options.get("bidirectional") else 32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(x))[0])


class _Cells(nn.Module):
    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = cell(16, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 32)
        self.body = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x)))


class _Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, 32), nn.Linear(32, 5)
        self.body = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        return self.head(self.body(y, y))


_SEQUENCE = lambda n: ((torch.randn(n, 6, 16),), {})  # noqa: E731

TORCH: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "lstm": (lambda: _Recurrent(nn.LSTM, num_layers=2), _SEQUENCE),
    "lstm_bidirectional": (lambda: _Recurrent(nn.LSTM, num_layers=2, bidirectional=True), _SEQUENCE),
    "gru": (lambda: _Recurrent(nn.GRU, num_layers=2), _SEQUENCE),
    "gru_bidirectional": (lambda: _Recurrent(nn.GRU, bidirectional=True), _SEQUENCE),
    "rnn": (lambda: _Recurrent(nn.RNN, num_layers=2), _SEQUENCE),
    "lstm_cells": (lambda: _Cells(nn.LSTMCell), _SEQUENCE),
    "gru_cells": (lambda: _Cells(nn.GRUCell), _SEQUENCE),
    "transformer_encoder": (_Encoder, _SEQUENCE),
    "transformer": (_Whole, _SEQUENCE),
}


def _torch(name: str) -> Case:
    build, inputs = TORCH[name]
    return _case(build, inputs)
