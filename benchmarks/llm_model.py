"""Which language model is pruned? A Llama, trained here on docstrings, one for each seed, and kept under build/.

transformers imports torchvision where it is installed, whose compiled operators may not load next to torch's CPU build: declaring
their schemas first is enough, as in the zoo.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llm_text import MORE, PACKAGES, corpus
from torch import Tensor, nn

__all__ = ["SIZES", "VOCABULARY", "batches", "perplexity", "quiet", "trained"]

VOCABULARY = 2048
LENGTH = 128


@dataclass(frozen=True)
class Size:
    """How large the model is, how many windows a batch has, and on which text it is trained."""

    width: int
    mlp: int
    layers: int
    heads: int
    batch: int
    learning_rate: float
    packages: tuple[str, ...]


SIZES = {
    # 1.05 M parameters: small enough for one core to train it until it needs them.
    "small": Size(128, 384, 4, 4, 8, 3e-3, PACKAGES),
    # 24 M parameters, for a GPU.
    "medium": Size(512, 1408, 8, 8, 64, 1.5e-3, MORE),
}


def build(size: Size) -> Any:
    """Return the untrained model."""
    if importlib.util.find_spec("torchvision"):
        from zoo_models import import_torchvision

        import_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def trained(seed: int, folder: Path, *, steps: int, size: str = "small", device: str = "cpu") -> Any:
    """Return the model of ``seed``, trained here or read from ``folder``."""
    torch.manual_seed(seed)
    config = SIZES[size]
    model = build(config).to(device)
    path = folder / f"llama{'' if size == 'small' else f'-{size}'}-{seed}-{steps}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path))
        return model.eval()
    tokens = corpus(folder, VOCABULARY, config.packages)["train"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    warm_up, started = steps // 10, time.perf_counter()
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
    )
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        starts = torch.randint(len(tokens) - LENGTH, (config.batch,), generator=draw)
        ids = windows(tokens, starts).to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(
                f"  seed {seed}, step {step + 1}: loss {float(loss):.3f}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def batches(
    folder: Path, part: str, count: int, *, seed: int, size: str = "small", device: str = "cpu"
) -> list[dict[str, Tensor]]:
    """Return ``count`` batches of text of one part, drawn by ``seed``."""
    config = SIZES[size]
    tokens = corpus(folder, VOCABULARY, config.packages)[part]
    starts = torch.randint(len(tokens) - LENGTH, (count * config.batch,), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": ids.to(device)} for ids in windows(tokens, starts).split(config.batch)]


def windows(tokens: Tensor, starts: Tensor) -> Tensor:
    """Return the text from each start on: (starts, LENGTH)."""
    return tokens[starts[:, None] + torch.arange(LENGTH)].long()


@contextmanager
def quiet() -> Iterator[None]:
    """Send what a library prints to nowhere."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@torch.no_grad()
def perplexity(model: Any, given: list[dict[str, Tensor]]) -> float:
    """Return exp of the mean loss per token."""
    losses = [float(model(**batch, labels=batch["input_ids"]).loss) for batch in given]
    return math.exp(sum(losses) / len(losses))
