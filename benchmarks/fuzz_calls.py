"""From which valid calls does the fuzzer start? Writes ``tests/graph_fuzz_calls.json``, from torch's own samples of its operations.

A line is one call: ``[operation, arguments, named arguments]``. A tensor is ``{"t": [shape, dtype, least, largest]}``, with a range
for integers, which may be places in another tensor. Run it when the list of operations has grown.
"""

from __future__ import annotations

import itertools
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.core.errors import BundleError
from prunus.ship.graph_files.allowed_operations import allowed_names, operation
from prunus.ship.graph_files.graph_file import _WORDS

CALLS = Path(__file__).parent.parent / "tests" / "graph_fuzz_calls.json"
MOST_CALLS, MOST_SAMPLES, LARGEST = 4, 24, 20_000


class _Recording(TorchDispatchMode):
    """Keeps the first calls of every operation that have different kinds of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[str, list[Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.keep(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def keep(self, func: Any, args: Any, kwargs: Any) -> None:
        name = str(func)
        try:
            operation(name)
            call = [name, [_written(part) for part in args], {key: _written(part) for key, part in kwargs.items()}]
        except (BundleError, TypeError):
            return
        own = self.kept.setdefault(name, {})
        kind = str([_kind(part) for part in call[1]])
        if kind not in own and len(own) < MOST_CALLS:
            own[kind] = call


def _kind(part: Any) -> str:
    """Return what makes a call another one: the types of its arguments, and how many dimensions a tensor has."""
    return f"{len(part['t'][0])} {part['t'][1]}" if isinstance(part, dict) and "t" in part else type(part).__name__


def _written(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.numel() > LARGEST:
            raise TypeError
        whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool) and value.numel()
        bounds = [int(value.min()), int(value.max())] if whole else [0, 1]
        return {"t": [list(value.shape), str(value.dtype).removeprefix("torch."), *bounds]}
    if isinstance(value, (list, tuple)):
        return [_written(part) for part in value]
    if isinstance(value, torch.device):
        return {"device": "model"}
    for tag, words in _WORDS.items():
        for word, meant in words.items():
            if value is meant or (tag == "float" and isinstance(value, float) and str(value) == word):
                return {tag: word}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError


def _samples() -> Any:
    sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=object))  # type: ignore[arg-type]
    from torch.testing._internal.common_methods_invocations import op_db

    for op in op_db:
        for dtype in (torch.float32, torch.int64, torch.complex64):
            if op.supports_dtype(dtype, "cpu"):
                try:
                    found = list(itertools.islice(op.sample_inputs("cpu", dtype), MOST_SAMPLES))
                except Exception:
                    found = []
                for sample in found:
                    yield lambda op=op, s=sample: op(s.input, *s.args, **s.kwargs)
                    if (twin := op.inplace_variant) is not None:
                        yield lambda twin=twin, s=sample: twin(s.input.clone(), *s.args, **s.kwargs)


def main() -> None:
    """Record and write."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    recording = _Recording()
    x = torch.randn(3, 5, 4)
    layers = [
        nn.LSTM(4, 6, batch_first=True, bidirectional=True),
        nn.GRU(4, 6, 2),
        nn.RNN(4, 6),
        nn.RNN(4, 6, nonlinearity="relu", bias=False),
    ]
    for layer, name in zip(layers, ("lstm", "gru", "rnn_tanh", "rnn_relu"), strict=True):
        layer.eval()
        state = torch.zeros(layer.num_layers * (1 + layer.bidirectional), x.shape[0 if layer.batch_first else 1], 6)
        held = [state, state.clone()] if name == "lstm" else state
        call = (
            x,
            held,
            [p.detach() for p in layer._flat_weights],
            layer.bias,
            layer.num_layers,
            0.0,
            False,
            layer.bidirectional,
            layer.batch_first,
        )
        recording.keep(getattr(torch.ops.aten, name).input, call, {})
    norm = [torch.rand(5) for _ in range(4)]
    for training in (False, True):
        recording.keep(torch.ops.aten.native_batch_norm.default, (x, *norm, training, 0.1, 1e-5), {})
        recording.keep(torch.ops.aten._native_batch_norm_legit.default, (x, *norm, training, 0.1, 1e-5), {})
    recording.keep(torch.ops.aten._native_batch_norm_legit_no_training.default, (x, *norm, 0.1, 1e-5), {})
    recording.keep(torch.ops.aten._native_batch_norm_legit.no_stats, (x, *norm[:2], True, 0.1, 1e-5), {})
    ends = torch.tensor([2, 5], dtype=torch.int32)
    recording.keep(torch.ops.aten._grouped_mm.default, (torch.randn(6, 4), torch.randn(2, 4, 8), ends), {})
    for run in _samples():
        for inference in (False, True):
            with torch.inference_mode(inference), torch.no_grad(), recording:
                try:
                    run()
                except Exception:
                    continue
    calls = [call for name in sorted(recording.kept) for call in recording.kept[name].values()]
    CALLS.write_text("[\n" + ",\n".join(json.dumps(call, separators=(",", ":")) for call in calls) + "\n]\n")
    missing = [name for name in allowed_names() if f"aten.{name}" not in recording.kept]
    print(f"{len(calls)} calls of {len(recording.kept)} operations; none of {len(missing)}: {', '.join(missing)}")


if __name__ == "__main__":
    main()
