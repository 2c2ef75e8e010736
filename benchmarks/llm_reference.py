"""What do others make of the same model, calibration text and amount? llm-compressor for Wanda and SparseGPT, torch for magnitude.

llm-compressor 0.14.0.1 wants older packages than prunus's lock has, so it gets an environment of its own. In one with
prunus (``pip install '.[sklearn]'``; SciPy comes with it) and the same torch:

    pip install transformers==5.17.0 pandas dill multiprocess xxhash requests psutil loguru
    pip install --no-deps llmcompressor==0.14.0.1 compressed-tensors==0.19.0 accelerate datasets

``--no-deps``, because the second line would otherwise bring another torch and what only its quantisation needs (auto-round,
nvidia-ml-py, pillow): this is all that is imported here.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from llm_model import quiet
from torch import nn
from torch.nn.utils import prune

__all__ = ["reference"]


def reference(model: Any, batches: list[dict[str, torch.Tensor]], criterion: str, amount: dict[str, Any]) -> None:
    """Prune the linear layers of ``model``'s blocks in place."""
    if criterion == "magnitude":
        _magnitude(model, amount)
        return
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[criterion]
    structure = "{}:{}".format(*amount["n_m"]) if "n_m" in amount else "0:0"
    # Not "Linear" without "lm_head": that pruned the embedding, which is tied to the head (0.14.0.1).
    modifier = kind(sparsity=0.5, mask_structure=structure, targets=[r"re:.*_proj$"])
    # It insists on a tokenizer, and uses none: the batches are tokens already.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with quiet(), tempfile.TemporaryDirectory() as folder:
        # It reads the model's config from where the model was loaded from.
        model.config.save_pretrained(folder)
        model.config.name_or_path = folder
        oneshot(
            model=model,
            processor=tokenizer,
            dataset=torch.utils.data.DataLoader(batches, batch_size=None),
            recipe=[modifier],
            pipeline="sequential",
            num_calibration_samples=len(batches),
        )


def _magnitude(model: Any, amount: dict[str, Any]) -> None:
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            if "n_m" in amount:
                groups = module.weight.detach().abs().view(-1, amount["n_m"][1])
                mask = torch.zeros_like(groups).scatter_(1, groups.topk(amount["n_m"][0], dim=1).indices, 1)
                module.weight.data.mul_(mask.view_as(module.weight))
            else:
                prune.l1_unstructured(module, "weight", 1 - amount["keep_fraction"])
                prune.remove(module, "weight")
