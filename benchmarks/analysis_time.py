"""How long does it take to find what hangs together, and how does that grow?

Usage: python benchmarks/analysis_time.py [bar] [densenet] [common] [depth] [llama70b] [--rounds 3] [--weights] [--match NAME]

* bar: all stages of common models below 150 M parameters at the sizes that people use, and whether they take 5 s at most;
  with --match those alone whose name has that in it.

* densenet: all that a cut needs (trace and groups, certificate, trial of the class, cut) of four DenseNets by prunus, and
  graph and cut by torch-pruning, in turns, each in a process of its own.
* common: the same for other common models. With ``--weights`` both are on torchvision's trained weights.
* depth: analysis of a residual convnet and of a transformer encoder with 12, 24, 48 and 96 blocks, by prunus and by torch-pruning.
* llama70b: a Llama of 70 B parameters on the meta device: seconds and peak memory of the analysis.

Seconds are of one core (processor time). Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

DENSENETS = ("densenet121", "densenet169", "densenet201", "densenet161")
COMMON = ("resnet50", "wide_resnet50_2", "vgg16", "convnext_base", "swin_t", "vit_b_16")
DEPTHS = (12, 24, 48, 96)
STAGES = ("groups", "certificate", "trial", "cut")


def main() -> None:
    """Parse and dispatch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--match", default="")
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "MODEL"))
    arguments = parser.parse_args()
    if arguments.one:
        print("RESULT " + json.dumps(one(*arguments.one, weights=arguments.weights)))
        return
    what = arguments.what or ["densenet", "common", "depth", "llama70b"]
    if "bar" in what:
        bar(arguments.match)
    if "densenet" in what:
        compare("DenseNet, concatenations", DENSENETS, arguments.rounds, weights=arguments.weights)
    if "common" in what:
        compare("Common models", COMMON, arguments.rounds, weights=arguments.weights)
    if "depth" in what:
        compare("Residual convnet by depth", [f"convnet{n}" for n in DEPTHS], arguments.rounds)
        compare("Transformer encoder by depth", [f"encoder{n}" for n in DEPTHS], arguments.rounds)
    if "llama70b" in what:
        llama(arguments.rounds)


def bar(match: str) -> None:
    """Print every stage of the models of the bar, each measured in a process of its own."""
    import torch
    from analysis_bar import BAR, SECONDS
    from zoo import in_process, warm_up

    for suite in {suite for suite, _, _ in BAR.values()} & {"timm", "torchvision", "transformers", "diffusers"}:
        warm_up(suite)
    torch.set_num_threads(1)
    ours(*build("convnet2"), "warm-up")
    print(f"| model | parameters | {' | '.join(STAGES)} | all | {SECONDS:.0f} s at most |")
    print(f"| --- | --- |{' --- |' * len(STAGES)} --- | --- |", flush=True)
    for name, (suite, _, _) in BAR.items():
        if match in name:
            row = in_process(_row, suite, name, 180)
            if "seconds" in row:
                stages = " | ".join(f"{row[stage]:.1f}" for stage in STAGES)
                met = "yes" if row["seconds"] <= SECONDS else "**no**"
                print(
                    f"| {name} | {row['parameters'] / 1e6:.0f} M | {stages} | {row['seconds']:.1f} s | {met} |",
                    flush=True,
                )
            else:
                print(f"| {name} | | | | | | {row.get('error', row.get('status'))} | **no** |", flush=True)


def _row(suite: str, name: str, debug: bool) -> dict[str, Any]:
    import torch
    from analysis_bar import build

    torch.manual_seed(0)
    model, inputs, kwargs = build(name)
    return ours(model.eval(), inputs, kwargs, name)


def compare(title: str, models: Any, rounds: int, *, weights: bool = False) -> None:
    """Print both tools side by side."""
    times: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for model in models:
            for tool in ("prunus", "torch-pruning"):
                times.setdefault((model, tool), []).append(process(tool, model, weights=weights))
    print(f"\n### {title}\n")
    print(f"| model | prunus: {' | '.join(STAGES)} | all | torch-pruning: graph and cut | ratio |")
    print(f"| --- |{' --- |' * len(STAGES)} --- | --- | --- |")
    for model in models:
        ours, peer = times[model, "prunus"], times[model, "torch-pruning"]
        ratios = [
            a["seconds"] / b["seconds"] for a, b in zip(ours, peer, strict=True) if "seconds" in a and "seconds" in b
        ]
        stages = [spread([row[stage] for row in ours if stage in row], "s") for stage in STAGES]
        whole = spread([row["seconds"] for row in ours if "seconds" in row], "s")
        other = (
            spread([row["seconds"] for row in peer if "seconds" in row], "s") if ratios else peer[0].get("error", "")
        )
        print(
            f"| {model} | {' | '.join(stages)} | {whole} | {other} | {spread(ratios, '') if ratios else ''} |",
            flush=True,
        )


def spread(values: list[float], unit: str) -> str:
    """Return the median and the range."""
    if not values:
        return "failed"
    return f"{statistics.median(values):.2f}{unit and ' ' + unit} ({min(values):.2f} to {max(values):.2f})"


def llama(rounds: int) -> None:
    """Print what a 70 B model on the meta device takes."""
    rows = [process("prunus", "llama70b") for _ in range(rounds)]
    print("\n### Llama of 70 B parameters on the meta device\n")
    print("| parameters | groups | blocks | analysis | peak memory of the process |\n| --- | --- | --- | --- | --- |")
    row = rows[0]
    seconds = spread([r["groups"] for r in rows], "s")
    print(
        f"| {row['parameters'] / 1e9:.1f} B | {row['n_groups']} | {row['n_blocks']} | {seconds} | "
        f"{max(r['peak_mb'] for r in rows)} MB |"
    )


def process(tool: str, model: str, *, weights: bool = False) -> dict[str, Any]:
    """Return one measurement, made in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", tool, model, *(["--weights"] if weights else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "more than 580 s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[-1][7:]) if lines else {"error": (done.stderr.strip().splitlines() or ["died"])[-1][:120]}


def one(tool: str, name: str, *, weights: bool) -> dict[str, Any]:
    """Measure one tool on one model."""
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = ours if tool == "prunus" else peer
    run(*build("convnet2"), "warm-up")  # leave torch's own first-call costs out, for both
    model, inputs, kwargs = build(name, weights=weights)
    return run(model.eval(), inputs, kwargs, name)


def ours(model: Any, inputs: Any, kwargs: Any, name: str) -> dict[str, Any]:
    """Find the groups, certify them, try what the class can follow, and keep half of each; without values only the first."""
    import torch

    from prunus.apply import follow_class, shrink
    from prunus.graph import analyze, certify

    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}

    def timed(stage: str, work: Any) -> Any:
        start = time.process_time()
        result = work()
        row[stage] = time.process_time() - start
        return result

    graph = timed("groups", lambda: analyze(model, inputs, kwargs))
    row |= {
        "n_groups": len(graph.groups),
        "n_blocks": sum(stack.size for stack in graph.stacks if stack.kind == "block"),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if name != "llama70b":
        certified = timed("certificate", lambda: certify(model, inputs, graph, kwargs=kwargs))
        followed = timed("trial", lambda: follow_class(model, inputs, certified, kwargs))
        halves = {g.name: -(-max(1, g.size // 2) // g.multiple) * g.multiple for g in followed.groups}
        keep = {g.name: torch.arange(g.size) < halves[g.name] for g in followed.groups}
        row["kind"] = timed("cut", lambda: shrink(model, inputs, followed, keep, kwargs=kwargs)).kind
        row["seconds"] = sum(row[stage] for stage in STAGES)
    return row


def peer(model: Any, inputs: Any, kwargs: Any, name: str) -> dict[str, Any]:
    """Build torch-pruning's graph and prune half, as its examples do."""
    import torch
    import torch_pruning as tp

    heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features in (10, 1000)]
    start = time.process_time()
    pruner = tp.pruner.MetaPruner(
        model,
        inputs[0][:1],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=heads,
        num_heads={m.qkv: getattr(m, "heads", None) or m.num_heads for m in model.modules() if hasattr(m, "qkv")},
    )
    pruner.step()
    return {"seconds": time.process_time() - start}


def build(name: str, *, weights: bool = False) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return a model, its positional inputs and its keyword inputs."""
    import torch
    from torch import nn

    sys.path.insert(0, str(Path(__file__).parent))
    if name.startswith("densenet") or name in COMMON:
        from zoo_models import import_torchvision

        side = 224 if name.startswith("vit") else 64
        chosen = "DEFAULT" if weights else None
        return import_torchvision().models.get_model(name, weights=chosen), (torch.randn(2, 3, side, side),), {}
    if name == "llama70b":
        from zoo_models import import_torchvision

        import_torchvision()  # transformers imports it where it is installed
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=128256, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80,
            num_attention_heads=64, num_key_value_heads=8, use_cache=False,
        )  # fmt: skip
        with torch.device("meta"):
            return LlamaForCausalLM(config), (), {"input_ids": torch.zeros(2, 16, dtype=torch.long)}
    kind, depth = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :])
    if kind == "convnet":
        blocks = [ConvBlock(32) for _ in range(depth)]
        layers = [nn.Conv2d(3, 32, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
        return nn.Sequential(*layers), (torch.randn(2, 3, 16, 16),), {}
    encoder = nn.Sequential(nn.Linear(16, 64), *[EncoderBlock(64, 4) for _ in range(depth)], nn.Linear(64, 10))
    return encoder, (torch.randn(2, 12, 16),), {}


def _blocks() -> tuple[Any, Any]:
    from torch import Tensor, nn
    from torch.nn import functional

    class Convolutions(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
            self.first, self.second = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.second(self.b(functional.relu(self.first(self.a(x)))))

    class Attention(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Tensor) -> Tensor:
            n, t, _ = x.shape
            q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            y = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(1, 2).reshape(n, t, -1))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    return Convolutions, Attention


def ConvBlock(width: int) -> Any:  # noqa: N802 - reads like the class that it makes
    """Return a residual block of two convolutions."""
    return _blocks()[0](width)


def EncoderBlock(width: int, heads: int) -> Any:  # noqa: N802
    """Return a transformer block."""
    return _blocks()[1](width, heads)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
