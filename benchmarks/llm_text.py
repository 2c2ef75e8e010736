"""Where does real English come from without a network? From the docstrings of what is installed, split by file.

The standard library, NumPy, SciPy and scikit-learn explain themselves in some ten megabytes of prose; a larger model gets what
torch, transformers and pandas say, too. A file belongs to the training, calibration or test part by a hash of its package and
path, so that no text is in two parts.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["MORE", "PACKAGES", "corpus", "tokenizer"]

PACKAGES = ("numpy", "scipy", "sklearn")
MORE = (*PACKAGES, "torch", "torchvision", "transformers", "pandas", "datasets", "huggingface_hub")
SHORTEST = 300
PARTS = {"train": range(16), "calibration": range(16, 18), "test": range(18, 20)}


def corpus(cache: Path, vocabulary: int, packages: tuple[str, ...] = PACKAGES) -> dict[str, Tensor]:
    """Return the token numbers of each part, from ``cache`` if they lie there."""
    path = cache / (f"text-{vocabulary}.pt" if packages == PACKAGES else f"text-{vocabulary}-{len(packages)}.pt")
    if not path.exists():
        texts: dict[str, list[str]] = {part: [] for part in PARTS}
        seen: set[str] = set()
        for name, text in docstrings(packages):
            if text in seen:  # many functions share a paragraph, word for word
                continue
            seen.add(text)
            bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 20
            texts[next(part for part, buckets in PARTS.items() if bucket in buckets)].append(text)
        coder = tokenizer(texts["train"], vocabulary)
        encoded = {
            part: [number for line in coder.encode_batch(lines) for number in line.ids] for part, lines in texts.items()
        }
        cache.mkdir(parents=True, exist_ok=True)
        sizes = {part: sum(map(len, lines)) for part, lines in texts.items()}
        torch.save(
            {"tokens": {part: torch.tensor(ids, dtype=torch.int16) for part, ids in encoded.items()}, "bytes": sizes},
            path,
        )
    tokens: dict[str, Tensor] = torch.load(path)["tokens"]
    return tokens


def tokenizer(texts: list[str], vocabulary: int) -> object:
    """Return a byte-level BPE tokenizer of ``vocabulary`` tokens, trained on ``texts``."""
    from tokenizers import ByteLevelBPETokenizer

    coder = ByteLevelBPETokenizer()
    coder.train_from_iterator(texts, vocab_size=vocabulary, show_progress=False)
    return coder


def docstrings(packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield every long docstring with the name of its file, in a fixed order."""
    places = [Path(sysconfig.get_path("stdlib"))]
    places += [Path(sysconfig.get_path("purelib")) / package for package in packages]
    for place in places:
        for path in sorted(place.rglob("*.py")):
            name = f"{place.name}/{path.relative_to(place)}"
            if "site-packages" in name or "/test" in name:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    text = ast.get_docstring(node, clean=False)
                    if text and len(text) >= SHORTEST:
                        yield name, inspect.cleandoc(text) + "\n\n"
