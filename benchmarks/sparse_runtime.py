"""Do zeros make a model faster? Time dense weights, the same with zeros, and torch's sparse format, in turns.

Every round runs each candidate once, in an order that turns; printed are medians with quartiles, of the times and of the paired
ratios to the dense weights in the same runtime and in the fastest one (above 1: faster than dense). No speed is claimed for a
runtime that isn't here.

Usage: python benchmarks/sparse_runtime.py [ROUNDS]   (ONNX Runtime takes part where it is installed)
"""

from __future__ import annotations

import importlib.util
import io
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

BATCH = 64
SHARES = (0.5, 0.75, 0.9, 0.95)
Key = tuple[str, str]


class Sparse(nn.Module):
    """A linear layer whose weight is a torch.sparse CSR matrix."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.weight = dense.weight.detach().to_sparse_csr()
        self.bias = dense.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``."""
        return torch.sparse.mm(self.weight, x.t()).t() + self.bias


def mlp() -> nn.Sequential:
    """Return an MLP of 3.1 M weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)
    ).eval()


def convolutions() -> nn.Sequential:
    """Return three 3 x 3 convolutions."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(64, 64, 3, padding=1)).eval()


@torch.no_grad()
def with_zeros(model: nn.Sequential, make: Callable[[], nn.Sequential], share: float) -> nn.Sequential:
    """Return a copy of ``model`` whose smallest weights are zero."""
    copy = make()
    copy.load_state_dict(model.state_dict())
    for parameter in copy.parameters():
        if parameter.dim() > 1:
            threshold = np.quantile(parameter.abs().numpy(), share)
            parameter.masked_fill_(parameter.abs() <= float(threshold), 0)
    return copy


def in_torch(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return one run in torch."""

    def run() -> object:
        with torch.inference_mode():
            return model(x)

    return run


def in_onnx_runtime(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return one run in ONNX Runtime on one thread."""
    import onnxruntime

    buffer = io.BytesIO()
    torch.onnx.export(model, (x,), buffer, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)


def times(candidates: dict[Key, Callable[[], object]], rounds: int) -> dict[Key, np.ndarray]:
    """Return the milliseconds of every round, all candidates in turns."""
    names = list(candidates)
    found: dict[Key, list[float]] = {name: [] for name in names}
    for number in range(rounds + 5):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            candidates[name]()
            if number >= 5:  # the first rounds warm up
                found[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    """Print one Markdown row per candidate."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # sparse tensors are in beta, and the exporter is the one that needs no onnxscript
    onnx = importlib.util.find_spec("onnxruntime") is not None
    print(f"one thread, batch of {BATCH}, {rounds} rounds; torch {torch.__version__}\n")
    print("| model | runtime | weights | ms | against its dense | against the fastest dense |")
    print("| --- | --- | --- | --- | --- | --- |")
    shapes = (("MLP, 2.9 M weights", mlp, (784,)), ("3x3 convolutions, 14 x 14", convolutions, (16, 14, 14)))
    for label, make, shape in shapes:
        dense, x = make(), torch.randn(BATCH, *shape)
        models = {"dense": dense} | {f"{share:.0%} zeros": with_zeros(dense, make, share) for share in SHARES}
        candidates = {("torch", name): in_torch(model, x) for name, model in models.items()}
        if make is mlp:
            for name, model in list(models.items())[1:]:
                sparse = nn.Sequential(*(Sparse(part) if isinstance(part, nn.Linear) else part for part in model))
                assert torch.allclose(sparse(x), model(x), atol=1e-4)
                candidates["torch", f"{name}, torch.sparse CSR"] = in_torch(sparse, x)
        if onnx:
            candidates |= {("ONNX Runtime", name): in_onnx_runtime(model, x) for name, model in models.items()}
        measured = times(candidates, rounds)
        fastest = min((key for key in measured if key[1] == "dense"), key=lambda key: np.median(measured[key]))
        for (runtime, name), values in measured.items():
            ratios = (quartiles(measured[key] / values) for key in ((runtime, "dense"), fastest))
            print(f"| {label} | {runtime} | {name} | {quartiles(values)} | {' | '.join(ratios)} |", flush=True)


def quartiles(values: np.ndarray) -> str:
    """Return a median with its quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
