"""Which language model is pruned? A small Llama, trained here on docstrings, one for each seed, and kept under build/.

transformers asks for torchvision, whose compiled operators don't load next to torch's CPU build here: declaring their schemas
first is enough, as in the zoo.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from llm_text import corpus
from torch import Tensor, nn

__all__ = ["VOCABULARY", "batches", "perplexity", "quiet", "trained"]

VOCABULARY = 2048
LENGTH = 128


def build() -> Any:
    """Return the untrained model: 4 layers of width 128, 1.05 M parameters: small enough to be trained until it needs them."""
    from zoo_models import import_torchvision

    import_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def trained(seed: int, folder: Path, *, steps: int, batch_size: int = 8) -> Any:
    """Return the model of ``seed``, trained here or read from ``folder``."""
    torch.manual_seed(seed)
    model = build()
    path = folder / f"llama-{seed}-{steps}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path))
        return model.eval()
    tokens = corpus(folder, VOCABULARY)["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    warm_up, started = steps // 10, time.perf_counter()
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
    )
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        ids = windows(tokens, torch.randint(len(tokens) - LENGTH, (batch_size,), generator=draw))
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


def batches(folder: Path, part: str, count: int, *, seed: int, batch_size: int = 8) -> list[dict[str, Tensor]]:
    """Return ``count`` batches of text of one part, drawn by ``seed``."""
    tokens = corpus(folder, VOCABULARY)[part]
    starts = torch.randint(len(tokens) - LENGTH, (count * batch_size,), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": ids} for ids in windows(tokens, starts).split(batch_size)]


def windows(tokens: Tensor, starts: Tensor) -> Tensor:
    """Return the text from each start on: (starts, LENGTH)."""
    return torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()]).long()


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
