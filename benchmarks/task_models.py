"""Small models of many tasks, and real or rendered data for them, for ``tasks.py``: nothing is downloaded.

Digits are scikit-learn's; texts are the docstrings of what is installed; programs are the standard library's. A case knows its
task, draws its data, and says how long it is trained.
"""

from __future__ import annotations

import ast
import io
import keyword
import sysconfig
import tokenize
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.tasks import (
    Agreement,
    Classification,
    Language,
    MultiLabel,
    Regression,
    Retrieval,
    Segmentation,
    SequenceToSequence,
    Task,
    TokenClassification,
)
from prunus.tasks.detection import Detection

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """``data`` gives inputs and targets; ``metric`` leads; ``loss`` takes the place of the task's in training."""

    task: Task
    model: Callable[[], nn.Module]
    data: Callable[[], tuple[Any, Any]]
    epochs: int
    metric: str
    max_drop: float = 0.02
    loss: Callable[[Any, Batch], Tensor] | None = None
    labelled: bool = True
    rate: float = 2e-3
    batch_size: int = 32


@cache
def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y)


def conv(out: int = 10) -> nn.Module:
    def block(width: int, wide: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(width, wide, 3, stride, 1), nn.BatchNorm2d(wide), nn.ReLU()]

    layers = [*block(1, 32, 1), *block(32, 64, 2), *block(64, 64, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, out))


class Encoder(nn.Module):
    """A transformer over the patches of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 64, 2, stride=2)
        self.place = nn.Parameter(torch.randn(16, 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.embed(x).flatten(2).mT + self.place).mean(1))
        return found


def properties() -> tuple[Tensor, Tensor]:
    """Say of each digit whether it is even, above four, prime, and drawn with a loop."""
    x, y = digits()
    sets = ({0, 2, 4, 6, 8}, {5, 6, 7, 8, 9}, {2, 3, 5, 7}, {0, 6, 8, 9})
    return x, torch.stack([torch.tensor([int(n) in one for n in y]) for one in sets], dim=1).float()


def diabetes() -> tuple[Tensor, Tensor]:
    x, y = load_diabetes(return_X_y=True)
    both = torch.tensor(y, dtype=torch.float32)
    return torch.tensor(x, dtype=torch.float32) * 20, torch.stack([both / 100, both.log()], dim=1)


def rendered(n: int = 900, size: int = 32, at_most: int = 3) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """Draw digits, twice as large, on textures: images, masks (0 is ground), and boxes."""
    x, y = digits()
    draw = torch.Generator().manual_seed(0)
    ground = functional.interpolate(torch.rand(n, 1, 8, 8, generator=draw), size=(size, size), mode="bilinear")
    images, masks = 0.5 * ground + 0.2 * torch.rand(n, 1, size, size, generator=draw), torch.zeros(n, size, size).long()
    found = []
    for i in range(n):
        boxes, labels = [], []
        for which in torch.randint(len(x), (int(torch.randint(1, at_most + 1, (1,), generator=draw)),), generator=draw):
            top, left = torch.randint(size - 15, (2,), generator=draw).tolist()
            glyph = functional.interpolate(x[which][None], scale_factor=2)[0, 0]
            ink = glyph > 0.4
            if bool(masks[i, top : top + 16, left : left + 16].any()):
                continue  # digits don't hide each other
            images[i, 0, top : top + 16, left : left + 16][ink] = 0.8 + 0.2 * glyph[ink]
            masks[i, top : top + 16, left : left + 16][ink] = 1 + int(y[which]) % 3
            rows, columns = ink.any(dim=1).nonzero().flatten(), ink.any(dim=0).nonzero().flatten()
            boxes.append(
                [left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1]
            )
            labels.append(int(y[which]) % 3)
        found.append({"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels).long()})
    return images, masks, found


class UNet(nn.Module):
    """Three scales, with skips."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()

        def block(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU()
            )

        self.down = nn.ModuleList([block(1, width), block(width, 2 * width), block(2 * width, 4 * width)])
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](functional.max_pool2d(a, 2))
        c = self.down[2](functional.max_pool2d(b, 2))
        b = self.up[0](torch.cat([functional.interpolate(c, scale_factor=2), b], dim=1))
        found: Tensor = self.head(self.up[1](torch.cat([functional.interpolate(b, scale_factor=2), a], dim=1)))
        return found


class Detector(nn.Module):
    """Says for each cell of an 8 x 8 grid what is centred there, and where its edges are, in parts of the image."""

    def __init__(self, width: int = 24, classes: int = 3) -> None:
        super().__init__()

        def block(a: int, b: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())

        self.body = nn.Sequential(
            block(1, width, 1),
            block(width, 2 * width, 2),
            block(2 * width, 2 * width, 1),
            block(2 * width, 4 * width, 2),
        )
        self.neck = nn.Sequential(block(4 * width, 4 * width, 1), block(4 * width, 4 * width, 1))
        self.classify, self.edges = nn.Conv2d(4 * width, classes, 1), nn.Conv2d(4 * width, 4, 1)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.neck(self.body(x))
        return found

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        edges, size = self.edges(features).sigmoid(), features.shape[-1]
        at = (torch.arange(size, device=x.device) + 0.5) / size
        row, column = at[:, None].expand(size, size), at[None].expand(size, size)
        left, top, right, bottom = edges.unbind(1)
        centre = torch.stack([column + (right - left) / 2, row + (bottom - top) / 2, left + right, top + bottom], dim=1)
        return {"logits": self.classify(features).flatten(2).mT, "pred_boxes": centre.flatten(2).mT}


def detector_loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """Focal loss of the cells, and the distance of the boxes where an object's centre lies."""
    logits, boxes = outputs["logits"], outputs["pred_boxes"]
    side = round(logits.shape[1] ** 0.5)
    wanted, near = torch.zeros_like(logits), []
    for i, objects in enumerate(batch.targets):
        one = objects["boxes"] / 32
        centre, sides = (one[:, :2] + one[:, 2:]) / 2, one[:, 2:] - one[:, :2]
        cell = (centre * side).long().clamp(0, side - 1)
        place = cell[:, 1] * side + cell[:, 0]
        wanted[i, place, objects["labels"]] = 1
        near.append((boxes[i, place] - torch.cat([centre, sides], dim=1)).abs().sum(dim=1))
    probability = logits.sigmoid()
    modulated = (wanted - probability).abs().square() * functional.binary_cross_entropy_with_logits(
        logits, wanted, reduction="none"
    )
    n = wanted.sum().clamp_min(1)
    return modulated.sum() / n + 5 * torch.cat(near).sum() / n


class PatchDetector(Detector):
    """The same, with a transformer over patches where the other has convolutions."""

    def __init__(self, width: int = 64, classes: int = 3) -> None:
        super().__init__(width // 4, classes)
        self.body = nn.Conv2d(1, width, 4, stride=4)
        self.place = nn.Parameter(torch.randn(64, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.neck = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.neck(self.body(x).flatten(2).mT + self.place).mT.unflatten(2, (8, 8))
        return found


@cache
def docstrings() -> list[tuple[str, int]]:
    """Return paragraphs of documentation, and the number of the package that they come from."""
    found, here = [], Path(np.__file__).parent.parent
    for number, package in enumerate(("numpy", "scipy", "sklearn", "torch")):
        texts: list[str] = []
        for path in sorted((here / package).rglob("*.py")):
            if len(texts) > 700:
                break
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    tree = ast.parse(path.read_text())
                except (SyntaxError, UnicodeDecodeError):
                    continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                    plain = " ".join(text.split())
                    if len(plain) >= 100 and plain.isascii():
                        texts.append(plain[:400])
        found += [(text, number) for text in texts[:700]]
    return found


def letters(text: str, length: int) -> list[int]:
    """Return the bytes of a text, 0 beyond its end."""
    return [*text.encode()[:length], *[0] * (length - len(text))][:length]


def packages(length: int = 48) -> tuple[Tensor, Tensor]:
    """Return words, each as one of 4000 numbers, and the package that they come from."""
    words_of = [[1 + crc32(word.lower().encode()) % 4000 for word in text.split()[:length]] for text, _ in docstrings()]
    ids = torch.tensor([[*words, *[0] * (length - len(words))] for words in words_of])
    return ids, torch.tensor([number for _, number in docstrings()])


def prose(length: int = 64) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([letters(text, length) for text, _ in docstrings()])
    return ids, ids


class Bert(nn.Module):
    """BERT with a head of transformers' own."""

    def __init__(self, kind: str, classes: int, vocabulary: int = 128) -> None:
        super().__init__()
        import transformers

        config = transformers.BertConfig(
            vocab_size=vocabulary, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=128, num_labels=classes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.bert = getattr(transformers, f"BertFor{kind}Classification")(config)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.bert(input_ids=ids, attention_mask=(ids > 0).long()).logits
        return found


def gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=128,
                    n_positions=64,
                    n_embd=96,
                    n_layer=3,
                    n_head=4,
                    resid_pdrop=0,
                    embd_pdrop=0,
                    attn_pdrop=0,
                )
            )

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.model(input_ids=ids, use_cache=False).logits
            return found

    return Bare()


KINDS = ("space", "comment", "string", "keyword", "name", "number", "operator")


@cache
def programs(length: int = 64, n: int = 2500) -> tuple[Tensor, Tensor]:
    """Return lines of the standard library, byte by byte, and what each byte is part of."""
    lines, marks = [], []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(errors="ignore")
        if not text.isascii():
            continue
        rows = text.split("\n")
        kinds = [[0] * len(row) for row in rows]
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                name = tokenize.tok_name[token.type]
                kind = {
                    "COMMENT": 1,
                    "STRING": 2,
                    "NAME": 3 if keyword.iskeyword(token.string) else 4,
                    "NUMBER": 5,
                    "OP": 6,
                }.get(name)
                if kind is None or token.start[0] != token.end[0]:
                    continue
                kinds[token.start[0] - 1][token.start[1] : token.end[1]] = [kind] * (token.end[1] - token.start[1])
        except tokenize.TokenError:
            continue
        for row, kind_of in zip(rows, kinds, strict=True):
            if 20 <= len(row) <= length and len(set(kind_of)) >= 3:
                lines.append(letters(row, length))
                marks.append([*kind_of, *[-100] * (length - len(row))])
    chosen = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))[:n]
    return torch.tensor(lines)[chosen], torch.tensor(marks)[chosen]


class Tagger(nn.Module):
    """A GRU in both directions over bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 32)
        self.gru = nn.GRU(32, 64, batch_first=True, bidirectional=True)
        self.head = nn.Linear(128, len(KINDS))

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.head(self.gru(self.embed(ids))[0])
        return found


ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
ONES += ["seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def words(n: int) -> str:
    """Say a number below 10,000.

    >>> words(2345)
    'two thousand three hundred forty five'
    """
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f" {ONES[n % 10]}" if n % 10 else "")
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if n >= size:
            return f"{words(n // size)} {name}" + (f" {words(n % size)}" if n % size else "")
    raise ValueError(n)


@cache
def spoken(n: int = 3000) -> tuple[dict[str, Tensor], Tensor]:
    """Return numbers in words, and in figures: what a teacher gives and what is asked."""
    numbers = torch.randperm(10000, generator=torch.Generator().manual_seed(0))[:n].tolist()
    said = torch.tensor([letters(words(number), 48) for number in numbers])
    figures = torch.tensor([[ord(c) for c in f"{number:04d}"] for number in numbers])
    start = torch.cat([torch.ones(n, 1).long(), figures[:, :-1]], dim=1)
    return {"input_ids": said, "decoder_input_ids": start}, figures


class T5(nn.Module):
    """T5 over bytes."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import T5Config, T5ForConditionalGeneration

        self.model = T5ForConditionalGeneration(
            T5Config(vocab_size=128, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0)
        )

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        mask = (input_ids > 0).long()
        found: Tensor = self.model(
            input_ids=input_ids, attention_mask=mask, decoder_input_ids=decoder_input_ids, use_cache=False
        ).logits
        return found


def masks() -> tuple[Tensor, Tensor]:
    images, found, _ = rendered()
    return images, found


def boxes() -> tuple[Tensor, list[dict[str, Tensor]]]:
    images, _, found = rendered()
    return images, found


CASES: dict[str, Case] = {
    "classes of digits, conv net": Case(Classification(n_classes=10), conv, digits, 10, "accuracy"),
    "classes of digits, ViT": Case(Classification(n_classes=10), Encoder, digits, 30, "accuracy"),
    "properties of digits (multi-label), conv net": Case(MultiLabel(), lambda: conv(4), properties, 12, "f1_macro"),
    "diabetes, two numbers, MLP": Case(
        Regression(),
        lambda: nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)),
        diabetes, 40, "r2", 0.05,
    ),
    "masks of digits on textures, U-Net": Case(Segmentation(), UNet, masks, 15, "miou", rate=5e-3, batch_size=16),
    "boxes of digits on textures, conv net": Case(
        Detection(activation="sigmoid", n_classes=3, nms=0.5), Detector, boxes, 20, "map_50", loss=detector_loss, labelled=False,
        rate=4e-3, batch_size=16,
    ),
    "boxes of digits on textures, ViT": Case(
        Detection(activation="sigmoid", n_classes=3, nms=0.5), PatchDetector, boxes, 60, "map_50", loss=detector_loss,
        labelled=False, batch_size=16,
    ),
    "package of a docstring, BERT": Case(Classification(n_classes=4), lambda: Bert("Sequence", 4, 4001), packages, 10, "accuracy"),
    "what each letter of a program is, BERT": Case(
        TokenClassification(KINDS), lambda: Bert("Token", len(KINDS)), programs, 10, "token_accuracy"
    ),
    "what each letter of a program is, GRU": Case(TokenClassification(KINDS), Tagger, programs, 8, "token_accuracy"),
    "next letter of docstrings, GPT-2": Case(Language(), gpt, prose, 6, "token_accuracy"),
    "figures of spoken numbers, T5": Case(SequenceToSequence(), T5, spoken, 15, "token_accuracy"),
    "like digits (retrieval), conv net": Case(Retrieval(), lambda: conv(16), digits, 8, "recall_at_1"),
    "no labels (agreement), ViT": Case(Agreement(), Encoder, digits, 30, "agreement", labelled=False),
}  # fmt: skip
