"""How much of the arithmetic that is cut arrives as time, in ONNX Runtime on one thread?

    python benchmarks/arithmetic_to_time.py                    # the table: three models, two shares, three ways of choosing widths
    python benchmarks/arithmetic_to_time.py --folder build/cut # keep the files, and time those that are there anew
    python benchmarks/arithmetic_to_time.py --plain            # exported without the operations that prunus puts in
    python benchmarks/arithmetic_to_time.py --profile          # and which operations the time goes to
    python benchmarks/arithmetic_to_time.py --quality          # accuracy at equal time, on a small net that is trained here

*Share of the ideal* is ``dense time x share of the MACs that is left / pruned time``: 1 where a cut that leaves half of the
multiplications leaves half of the time, 0.5 where it saves no time at all at a half. Ratios of times are taken within rounds in
which all models take turns; median and quartiles.

The ways: ``any width`` counts MACs and cuts channels one by one (``round_to: 1``, what prunus did unasked), ``kernel widths``
counts MACs and keeps to blocks (``round_to: auto``), ``by time`` asks for a share of the latency (``target: latency``), at the
shares in ``BY_TIME``, so that about as much arithmetic is left; where a model is a stack of like layers, ``layers first`` takes
half of the layers out (``granularity: [block, channel]``) and cuts what is left to the share in blocks. Weights are drawn,
as no trained ones are at hand: which units go doesn't change the time, how many go of each layer does.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply import shrink
from prunus.core.recipes import recipe
from prunus.core.runtime import versions
from prunus.core.types import Floats
from prunus.evaluate import measure_cost
from prunus.evaluate.timing import onnx_session
from prunus.evaluate.timing.contest import InProcess, take_turns
from prunus.evaluate.timing.latency_table import machine_facts
from prunus.evaluate.timing.onnx_session import export_onnx, open_session
from prunus.pipeline.costing.cost_targets import Counted
from prunus.pipeline.costing.latency_targets import Timed
from prunus.pipeline.cut.prunable import groups_of, prunable_graph
from prunus.pipeline.cut.unit_places import n_weights
from prunus.score import gather, norm_scales, score_groups

LEFT = (0.5, 0.25)
BY_TIME = {"resnet50": (0.5, 0.26), "mobilenetv2": (0.52, 0.29), "bert": (0.53, 0.3)}
"""The shares of the latency that leave about those shares of the MACs."""
WAYS = ("any width", "kernel widths", "by time", "layers first")
STACKED = ("bert",)
"""The models of like layers."""


class Bert(nn.Module):
    """BERT with six layers of 384, for a classification of 128 tokens."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        config = transformers.BertConfig(
            vocab_size=8000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536,
            max_position_embeddings=128,
        )  # fmt: skip
        self.bert = transformers.BertForSequenceClassification(config)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.bert(input_ids=ids).logits
        return found


def model_of(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model and a batch of one."""
    torch.manual_seed(0)
    if name == "bert":
        return Bert().eval(), torch.randint(0, 8000, (1, 128))
    import torchvision

    make = {"resnet50": torchvision.models.resnet50, "mobilenetv2": torchvision.models.mobilenet_v2}[name]
    return make().eval(), torch.randn(1, 3, 224, 224)


class Nothing:
    """No examples: units are judged by their weights."""

    def __len__(self) -> int:
        return 0

    def batches(self, *_: Any, **__: Any) -> Any:
        """Yield nothing."""
        return iter(())


class Cutter:
    """Cuts a model to a share of a cost, as a target of prunus does; the weights' norms say which units go."""

    def __init__(self, model: nn.Module, example: Tensor, unit: str = "channel") -> None:
        self.model, self.example, self.pair = model, example, torch.cat([example, example])
        self.graph = prunable_graph(model, self.pair, (), seed=0, granularity=unit, by_config=False)
        self.groups = groups_of(self.graph, unit)
        names = sorted({name for group in self.groups for name in group.parameters(model)})
        evidence = gather(model, names, Nothing(), lambda *_: torch.zeros(()), {"weight"}, 1, seed=0)
        scored = score_groups(self.groups, evidence, "magnitude_l2", norm_scales=norm_scales(model), seed=0)
        self.strata = [
            replace(
                s,
                min_units=g.min_units,
                multiple=g.multiple,
                joint=self.graph.joint_of(g.name),
                n_weights=n_weights(model, g),
            )
            for s, g in zip(scored, self.groups, strict=True)
        ]
        if unit == "block":
            return
        config = recipe.Latency(batch_size=len(example), repeats=25, warm_up=3, runtime="onnxruntime")
        self.costs = {
            "any width": Counted.of("macs", model, self.pair, round_to=1),
            "kernel widths": Counted.of("macs", model, self.pair),
            "by time": Timed(model, example, self.pair, config, note=lambda text: None),
        }

    def cut(self, way: str, share: float) -> nn.Module:
        """Return the smaller model."""
        if way == "layers first":
            fewer = Cutter(self.model, self.example, "block").halved()
            whole, left = (measure_cost(one, self.pair).macs for one in (self.model, fewer))
            return Cutter(fewer, self.example).cut("kernel widths", share * whole / left) if share < 0.5 else fewer
        return self._without(self.costs[way].choose(self.graph, self.groups, self.model, self.strata, share))

    def halved(self) -> nn.Module:
        """Return the model with the half of each stack of layers whose weights are larger."""
        return self._without([np.argsort(np.argsort(-s.saliency)) < (len(s.saliency) + 1) // 2 for s in self.strata])

    def _without(self, keep: Sequence[Any]) -> nn.Module:
        masks = {g.name: torch.from_numpy(mask) for g, mask in zip(self.groups, keep, strict=True)}
        return shrink(self.model, (self.pair,), self.graph, masks).model.eval()


def timed(files: dict[str, bytes], example: Tensor, rounds: int) -> dict[str, Floats]:
    """Return the seconds of each file, round by round."""

    def ready(file: bytes) -> InProcess:
        session = open_session(file, threads=1)
        given = {session.get_inputs()[0].name: example.numpy()}
        return InProcess(lambda: session.run(None, given), "processor")

    return take_turns({name: ready(file) for name, file in files.items()}, repeats=rounds, warm_up=4, seed=0)


def cut_files(
    name: str, folder: Path | None, ways: Sequence[str] = WAYS
) -> tuple[dict[str, bytes], dict[str, float], Tensor]:
    """Return the files of a model, dense and cut in every way, and the share of the MACs that each has left.

    Args:
        folder: where they are kept; what lies there is taken as it is.
    """
    model, example = model_of(name)
    known = None if folder is None else folder / f"{name}.json"
    if known is not None and known.exists():
        left = json.loads(known.read_text())
        return {called: (known.parent / f"{name} {called}.onnx").read_bytes() for called in left}, left, example
    cutter = Cutter(model, example)
    whole = measure_cost(model, cutter.pair).macs
    files, left = {"dense": export_onnx(model, cutter.pair)}, {"dense": 1.0}
    for way in (one for one in ways if one != "layers first" or name in STACKED):
        for number, share in enumerate(BY_TIME[name] if way == "by time" else LEFT):
            called = f"{way} {LEFT[number]:g}"
            smaller = cutter.cut(way, share)
            files[called], left[called] = (
                export_onnx(smaller, cutter.pair),
                measure_cost(smaller, cutter.pair).macs / whole,
            )
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        for called, file in files.items():
            (known.parent / f"{name} {called}.onnx").write_bytes(file)
        known.write_text(json.dumps(left))
    return files, left, example


def table(
    name: str, rounds: int, folder: Path | None, ways: Sequence[str], *, with_profile: bool
) -> list[dict[str, Any]]:
    """Print and return the rows of one model."""
    files, left, example = cut_files(name, folder, ways)
    found = timed(files, example, rounds)
    dense, rows = found["dense"], []
    for called, seconds in found.items():
        ratio, arrived = seconds / dense, left[called] * dense / seconds
        row = {
            "model": name,
            "way": called,
            "macs": left[called],
            "milliseconds": 1000 * float(np.median(seconds)),
            "time": float(np.median(ratio)),
            "of_ideal": float(np.median(arrived)),
            "quartiles": np.quantile(arrived, [0.25, 0.75]).tolist(),
            "quietest": left[called] * float(dense.min() / seconds.min()),
        }
        rows.append(row)
        low, high = row["quartiles"]
        print(
            f"{name:12} {called:20} MACs {row['macs']:.3f}  {row['milliseconds']:7.2f} ms  time {row['time']:.3f}  "
            f"of the ideal {row['of_ideal']:.3f} ({low:.3f} to {high:.3f}), of the quietest {row['quietest']:.3f}",
            flush=True,
        )
        if with_profile:
            show_profile(files[called], example)
    return rows


def show_profile(file: bytes, example: Tensor) -> None:
    """Print which operations of a file the time goes to, as ONNX Runtime's own profile has it."""
    import onnxruntime

    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = 1, True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        runs = 20
        for _ in range(runs):
            session.run(None, {session.get_inputs()[0].name: example.numpy()})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / runs
    print("   ", ", ".join(f"{kind} {us:.0f}" for kind, us in spent.most_common(9)), "microseconds", flush=True)


class Inverted(nn.Module):
    """An inverted residual: widen, depthwise, narrow."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        inner, self.adds = 6 * width, stride == 1 and width == out
        self.layers = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return x + made if self.adds else made


def small_net() -> nn.Module:
    blocks = [Inverted(24, 24, 1), Inverted(24, 48, 2), Inverted(48, 48, 1), Inverted(48, 80, 2), Inverted(80, 80, 1)]
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(80, 10),
    )  # fmt: skip


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator)[: len(images) // 64 * 64].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def judged(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return accuracy and cross-entropy."""
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in images.split(500)])
    return float((logits.argmax(1) == labels).float().mean()), float(nn.functional.cross_entropy(logits, labels))


def quality(rounds: int, seeds: int) -> list[dict[str, Any]]:
    """Print accuracy on handwritten digits at equal time: what counts MACs goes first, the others get its time."""
    from contract import mnist

    images, labels = mnist().tensors
    images = nn.functional.avg_pool2d(images, 2)  # 14 x 14: it is trained here, again and again
    rows = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = small_net()
        order = torch.randperm(len(images))
        fit, test = order[:4000], order[4000:]
        train(model, images[fit], labels[fit], 3, 3e-3, seed)
        cutter = Cutter(model, images[:8])
        made: dict[str, nn.Module] = {"dense": model}
        for macs in (0.5, 0.3):
            slow = cutter.cut("any width", macs)
            share = cutter.costs["by time"].share(slow)
            made[f"any width {macs:g}"] = slow
            if share < 0.97:  # else there is nothing to give
                made[f"by time, as long as any width {macs:g}"] = cutter.cut("by time", share)
            made[f"kernel widths {macs:g}"] = cutter.cut("kernel widths", macs)
            share = cutter.costs["by time"].share(made[f"kernel widths {macs:g}"])
            made[f"by time, as long as kernel widths {macs:g}"] = cutter.cut("by time", share)
        taken = timed({called: export_onnx(one, images[:8]) for called, one in made.items()}, images[:8], rounds)
        for called, smaller in made.items():
            if called != "dense":
                train(smaller, images[fit], labels[fit], 1, 1e-3, seed)
            accuracy, loss = judged(smaller, images[test], labels[test])
            time = float(np.median(taken[called] / taken["dense"]))
            macs_left = measure_cost(smaller, cutter.pair).macs / measure_cost(model, cutter.pair).macs
            rows.append(
                {"seed": seed, "way": called, "time": time, "macs": macs_left, "accuracy": accuracy, "loss": loss}
            )
            print(
                f"seed {seed}  {called:45} time {time:.3f}  MACs {macs_left:.3f}  test accuracy {accuracy:.4f}  "
                f"cross-entropy {loss:.4f}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenetv2", "bert"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--plain", action="store_true", help="export the operations that torch's exporter writes")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the files there, and time those that are there")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.plain:
        onnx_session.use_fast_forms = lambda graph: None
    if asked.quality:
        rows = quality(asked.rounds, asked.seeds)
    else:
        rows = [
            row
            for name in asked.models
            for row in table(name, asked.rounds, asked.folder, asked.ways, with_profile=asked.profile)
        ]
    about = machine_facts("onnxruntime")
    print(json.dumps(about | {"versions": versions()}))
    if asked.out is not None:
        asked.out.write_text(json.dumps({"machine": about, "versions": versions(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
