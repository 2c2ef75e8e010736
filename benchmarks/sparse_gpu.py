"""Is 2:4 faster on this GPU? Time linear layers with all weights and with two of every four, in turns.

Usage: python benchmarks/sparse_gpu.py [--repeats 30]

The mask is prunus's (the two largest of four inputs), the kernels are torch's semi-structured ones in bfloat16. Each round runs
both once per size, in an order that turns; printed are the median of the paired ratios and its quartiles (above 1: faster than
dense), and the largest difference to the dense kernel on the same zeros, over its largest output.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.sparse import to_sparse_semi_structured

from prunus.recover import keep_top

SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))
TOKENS = (64, 512, 4096, 16384)
CALLS = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16")
    print("| outputs x inputs | tokens | dense, ms | 2:4, ms | times as fast (quartiles) | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for outputs, inputs in SHAPES:
        weight = torch.randn(outputs, inputs, device="cuda") * inputs**-0.5
        weight = (weight * keep_top(weight.abs(), n_m=(2, 4))).bfloat16()
        packed = to_sparse_semi_structured(weight)
        for tokens in TOKENS:
            x = torch.randn(tokens, inputs, device="cuda", dtype=torch.bfloat16)
            with torch.inference_mode():
                dense, sparse = linear(x, weight).float(), linear(x, packed).float()
                apart = float((dense - sparse).abs().max() / dense.abs().max())
                rounds = [measured(x, weight, packed, turn) for turn in range(repeats + 3)][3:]
            ratios = sorted(one / two for one, two in rounds)
            low, middle, high = statistics.quantiles(ratios, n=4)
            times = [statistics.median(column) for column in zip(*rounds, strict=True)]
            cells = (f"{outputs} x {inputs}", tokens, f"{times[0]:.4f}", f"{times[1]:.4f}")
            print(
                f"| {' | '.join(map(str, cells))} | {middle:.2f} ({low:.2f} to {high:.2f}) | {apart:.1e} |", flush=True
            )


def measured(x: Tensor, weight: Tensor, packed: Tensor, turn: int) -> tuple[float, float]:
    """Return the milliseconds of one call with each weight."""
    found = {}
    for name, held in (("dense", weight), ("sparse", packed))[:: 1 if turn % 2 else -1]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            linear(x, held)
        end.record()
        end.synchronize()
        found[name] = start.elapsed_time(end) / CALLS
    return found["dense"], found["sparse"]


if __name__ == "__main__":
    main()
