"""A causal language model and transformers' ``Trainer``: trained, pruned to half of its MACs, and the same trainer goes on.

    pip install prunus "transformers[torch]"
    python examples/language.py llama

The text is Python's own documentation, which every Python brings along; tokens are bytes. What is promised is perplexity, on topics
that neither training nor pruning saw, against the dense model that was trained on for as long. The folder gets the pruned model as
transformers saves it: ``from_pretrained`` brings it back.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import prunus
from prunus.data import collect
from prunus.evaluate import NonInferiority, noninferiority, observe
from prunus.tasks import Language

LENGTH = 96


class Text(Dataset):
    """Pieces of documentation, each a mapping as ``Trainer`` wants it: bytes are the tokens, and the labels, too."""

    def __init__(self, names: list[str], n: int | None = None) -> None:
        content = "\n".join(topics[name] for name in names).encode()
        self.pieces = torch.frombuffer(bytearray(content), dtype=torch.uint8).long()
        self.pieces = self.pieces[: len(content) // LENGTH * LENGTH].view(-1, LENGTH)[:n]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.pieces[index], "labels": self.pieces[index]}


def parts(n_test: int) -> tuple[Text, Text]:
    """Return the text that is trained on, and the topics that are held out."""
    names = sorted(topics)
    return Text([name for row, name in enumerate(names) if row % 5]), Text(names[::5], n_test)


def small_llama(width: int = 96, layers: int = 3) -> LlamaForCausalLM:
    """Return a model of transformers with random weights; nothing is downloaded."""
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def train(model: nn.Module, text: Text, folder: Path, steps: int, rate: float) -> None:
    """Train as you always do with ``Trainer``: nothing in here knows of pruning."""
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 10,
        per_device_train_batch_size=16,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=True,
        seed=0,
    )
    Trainer(model, arguments, train_dataset=text).train()
    model.eval()


@dataclass(frozen=True)
class Result:
    """What came out: costs, and the contract right after the cut and once both models were trained on."""

    small: prunus.Pruned
    cut: NonInferiority
    trained: NonInferiority


def main(folder: Path, *, steps: int = 160, steps_on: int = 80, n_test: int = 400, criterion: str = "auto") -> Result:
    """Train, prune, go on training, hold to the contract, save."""
    torch.manual_seed(0)
    text, held_out = parts(n_test)
    dense = small_llama()
    train(dense, text, folder, steps, rate=5e-3)

    small = prunus.prune(
        dense,
        {"input_ids": text.pieces[:4]},
        data=text,
        task="language",
        keep_fraction=0.55,  # of the units: a bit less than half of the MACs
        criterion=criterion,
        allocation="uniform",  # so that a config says the sizes, and from_pretrained works: layers stay alike,
        exclude=["model.rotary_emb"],  # rotary frequencies whole,
        round_to=4,  # and the width a multiple of the number of heads
        n_calibration=128,
    )

    task = Language()
    asked = collect(held_out, {"input_ids": held_out.pieces[:1]}, n=n_test)

    def test() -> NonInferiority:
        before, after = (observe(model, asked, task) for model in (dense, small.model))
        return noninferiority(before, after, task, metric="perplexity", max_drop=0.5, confidence=0.95, seed=0)

    cut = test()
    for model in (
        small.model,
        dense,
    ):  # the same Trainer; the dense model goes on, too, or the comparison would be unfair
        train(model, text, folder, steps_on, rate=3e-3)
    trained = test()
    small.model.save_pretrained(folder / "pruned")
    return Result(small, cut, trained)


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "llama")
    result = main(out)
    print(result.small)
    for when, found in (("cut", result.cut), ("both trained on", result.trained)):
        print(f"{when}: perplexity {found.dense:.2f} dense, {found.pruned:.2f} pruned, at most {found.bound:.2f} more")
    print("the contract is kept" if result.trained.kept else "the contract is broken")
    loaded = LlamaForCausalLM.from_pretrained(out / "pruned")
    print(f"loaded again: {loaded.num_parameters():,} parameters")
