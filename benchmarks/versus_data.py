"""Which images and models do prunus and torch-pruning meet on?

Images: the letters A to J in the fonts of Debian's packages that ``versus_fonts.txt`` names (``xargs apt-get install <
benchmarks/versus_fonts.txt``), split by font family, so that no family has letters in two parts; and scikit-learn's digits. Each
seed has a split of its own. Models: timm's ResNet and Vision Transformer, small enough to be trained on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

LETTERS = "ABCDEFGHIJ"
SIDE, INNER = 28, 22
SHARES = {"test": 0.35, "validation": 0.08, "calibration": 0.1}
SAME_DESIGN = 0.02
"""Families whose letters differ by less than this on average (0 black, 1 white) are one family under two names."""
FOLDERS = (Path("/usr/share/fonts"), Path("/usr/share/texmf/fonts"))


def data_set(name: str, cache: Path, seed: int = 0) -> Any:
    """Return the examples of ``glyphs`` or ``digits`` as prunus takes them, in the split of a seed."""
    from prunus.core.recipes.recipe import Data, Split
    from prunus.data import prepare

    if name == "digits":
        return prepare(Data(source="sklearn:digits", split=Split(**SHARES, seed=seed)))
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, **glyphs(FOLDERS))
    with np.load(cache) as arrays:
        return by_part(dict(arrays), seed)


def by_part(arrays: dict[str, Any], seed: int) -> Any:
    """Return the examples of a cache, each in the part that its family has with a seed."""
    from prunus.core.recipes.recipe import Data
    from prunus.data import Examples, Prepared, Scaler
    from prunus.data.content import content_digests, fingerprint
    from prunus.data.sources.arrays import array_source
    from prunus.data.split import PARTS, Splits

    part_of = parts(sorted(set(arrays["family"].tolist())), seed)
    part = np.asarray([part_of[family] for family in arrays["family"].tolist()])
    inputs = torch.from_numpy(arrays["x"]).float().unsqueeze(1) / 255
    source = array_source(inputs, arrays["label"], Data(source="glyphs"), class_names=tuple(LETTERS))
    splits = Splits(**{name: torch.from_numpy(np.flatnonzero(part == name)) for name in PARTS})
    scaler = Scaler.fit(source, splits.train)
    examples = {name: Examples(source, splits.part(name), scaler=scaler) for name in PARTS}
    return Prepared(source, splits, scaler, **examples, fingerprint=fingerprint(source, content_digests(source)))


def glyphs(folders: tuple[Path, ...]) -> dict[str, Any]:
    """Return the letters of every family that has them: ``x`` (n, 28, 28) bytes, ``label`` and ``family``."""
    from PIL import ImageFont

    faces: dict[str, list[Any]] = {}
    paths = sorted(path for folder in folders for path in folder.rglob("*.[ot]tf"))
    for path in paths:
        try:
            font = ImageFont.truetype(str(path), 64)
            faces.setdefault(str(font.getname()[0]), []).append(font)
        except OSError:
            print(f"{path}: can't be read", file=sys.stderr)
    drawn: dict[str, list[Any]] = {}
    for family, fonts in faces.items():
        letters = [draw(font) for font in {id(font): font for font in (fonts[0], fonts[-1])}.values()]
        if found := [images for images in letters if images is not None]:
            drawn[family] = found
    families = one_name_each(drawn)
    rows = [
        (image, label, family)
        for family in sorted(families)
        for images in families[family]
        for label, image in enumerate(images)
    ]
    x, label, family = (np.asarray(column) for column in zip(*rows, strict=True))
    return {"x": x, "label": label, "family": family}


def draw(font: Any) -> Any:
    """Return the ten letters, (10, 28, 28), each scaled into the middle; None where the font lacks some of them."""
    from PIL import Image

    images = []
    for letter in LETTERS:
        try:
            mask = font.getmask(letter, mode="L")
        except OSError:
            return None
        width, height = mask.size
        if width < 4 or height < 4:
            return None
        image = Image.frombytes("L", mask.size, bytes(mask))
        scale = INNER / max(width, height)
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
        canvas = Image.new("L", (SIDE, SIDE))
        canvas.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
        images.append(np.asarray(canvas))
    stack = np.stack(images)
    # A font without letters draws one and the same box for all of them.
    return stack if len({image.tobytes() for image in images}) == len(LETTERS) else None


def one_name_each(drawn: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the families without those that look like one before them."""
    kept: dict[str, list[Any]] = {}
    seen = np.zeros((0, len(LETTERS) * SIDE * SIDE), dtype=np.float32)
    for family in sorted(drawn):
        flat = np.stack(drawn[family]).reshape(len(drawn[family]), -1).astype(np.float32) / 255
        if any(len(seen) and np.abs(seen - face).mean(axis=1).min() < SAME_DESIGN for face in flat):
            continue
        kept[family], seen = drawn[family], np.concatenate([seen, flat])
    return kept


def parts(families: list[str], seed: int) -> dict[str, str]:
    """Return the part of each family."""
    order = np.random.default_rng(seed).permutation(len(families))
    ends = np.cumsum([round(share * len(families)) for share in SHARES.values()])
    names = [*SHARES, "train"]
    return {families[k]: names[int(np.searchsorted(ends, place, side="right"))] for place, k in enumerate(order)}


def make_model(name: str, data: str, seed: int) -> nn.Module:
    """Return timm's ``resnet`` or ``vit`` with fresh weights, in the size for a data set."""
    from zoo_models import import_torchvision

    import_torchvision()
    from timm.models.resnet import BasicBlock, ResNet
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    if name == "vit":
        side, patch = (SIDE, 7) if data == "glyphs" else (8, 2)
        return VisionTransformer(
            side, patch, 1, len(LETTERS), embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0, weight_init="jax"
        )
    model = ResNet(BasicBlock, (1, 1, 1), len(LETTERS), 1, channels=(24, 48, 96), stem_width=12, stem_type="deep")
    model.layer4 = nn.Identity()  # three stages, as in the CIFAR form
    if data == "digits":  # 8 x 8 pixels are left as they are until the second stage
        model.conv1[0].stride, model.maxpool = (1, 1), nn.Identity()
    return model
