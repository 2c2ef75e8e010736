"""How is a program of torch turned into a format for small devices, apart from our process?

Converters talk much and patch torch. This is a script for a process of its own, ``WORK FILE...``. What went wrong is the last line
that it writes; facts go to a JSON file. The ``.pt2`` that it loads has the SHA-256 of what the process that started it wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prunus.ship.executable_files import load_program

__all__: list[str] = []


def _to_executorch(program: str, target: str, _: str, digest: str) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        load_program(Path(program), sha256=digest), partitioner=[XnnpackPartitioner()]
    )
    made = lowered.to_executorch()
    Path(target).write_bytes(made.buffer)


def _run_executorch(file: str, given: str, wanted: str, _: str) -> None:
    import torch
    from executorch.runtime import Runtime

    content = Path(file).read_bytes()
    program = Runtime.get().load_program(content)  # it and the bytes must stay while the method runs
    method = program.load_method("forward")
    _answer(
        given, wanted, lambda arrays: [one.numpy() for one in method.execute([torch.from_numpy(a) for a in arrays])]
    )


def _to_litert(program: str, target: str, _: str, digest: str) -> None:
    import litert_torch
    import torch

    loaded = load_program(Path(program), sha256=digest)
    given, named = loaded.example_inputs
    ordered = tuple(given) + tuple(named.values())

    class Positional(torch.nn.Module):
        """The program, called by place."""

        def __init__(self) -> None:
            super().__init__()
            self.program = loaded.module()

        def forward(self, *inputs: Any) -> Any:
            """Return what the program answers."""
            return self.program(**dict(zip(named, inputs, strict=True))) if named else self.program(*inputs)

    litert_torch.convert(Positional(), ordered).export(target)


def _run_litert(file: str, given: str, wanted: str, _: str) -> None:
    runner, fitted = _litert(file, 1)

    def run(arrays: list[Any]) -> list[Any]:
        outputs = runner(**fitted(arrays))
        return [outputs[name] for name in sorted(outputs, key=lambda name: int(name.rpartition("_")[2]))]

    _answer(given, wanted, run)


def _litert(file: str, threads: int) -> tuple[Any, Any]:
    """Return what calls the model by keywords, and what makes those of arrays: whole numbers have 32 bits there."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=file, num_threads=threads).get_signature_runner()
    taken = sorted(runner.get_input_details().items(), key=lambda one: int(one[0].rpartition("_")[2]))

    def fitted(arrays: list[Any]) -> dict[str, Any]:
        return {name: array.astype(detail["dtype"]) for (name, detail), array in zip(taken, arrays, strict=True)}

    return runner, fitted


def _time_litert(file: str, given: str, threads: str, clock: str) -> None:
    """Read how many calls to make, line by line, and write the seconds that they took."""
    import time

    import numpy as np

    now = time.process_time if clock == "processor" else time.perf_counter
    runner, fitted = _litert(file, int(threads))
    with np.load(given) as held:
        inputs = fitted([held[name] for name in sorted(held.files, key=lambda name: int(name.partition(".")[2]))])
    for line in sys.stdin:
        start = now()
        for _ in range(int(line)):
            runner(**inputs)
        print(f"seconds {now() - start:.9f}", flush=True)  # noqa: T201 - our end of a pipe reads it


def _answer(given: str, wanted: str, run: Any) -> None:
    """Write the outputs of every batch: arrays are called ``BATCH.NUMBER``."""
    import numpy as np

    with np.load(given) as held:
        batches: dict[int, list[Any]] = {}
        for key in sorted(held.files, key=lambda key: [int(part) for part in key.split(".")]):
            batches.setdefault(int(key.split(".")[0]), []).append(held[key])
    outputs = {f"{n}.{k}": np.array(one) for n, arrays in batches.items() for k, one in enumerate(run(arrays))}
    np.savez(wanted, allow_pickle=False, **outputs)


def _to_coreml(program: str, target: str, facts: str, digest: str) -> None:
    import coremltools
    import numpy as np

    told = json.loads(Path(facts).read_text())
    ranges: dict[str, Any] = {}
    inputs = []
    for one in told["inputs"]:
        shape = []
        for size, (least, most, name) in zip(one["shape"], one["spans"], strict=True):
            if least == most:
                shape.append(least)
                continue
            if name not in ranges:  # coremltools lets a name be used once, and then wants that object
                ranges[name] = coremltools.RangeDim(least, most, default=size, symbol=name)
            shape.append(ranges[name])
        inputs.append(coremltools.TensorType(name=one["name"], shape=shape, dtype=getattr(np, one["dtype"])))
    model = coremltools.convert(
        load_program(Path(program), sha256=digest).run_decompositions({}),
        inputs=inputs,
        outputs=[coremltools.TensorType(name=name) for name in told["outputs"]],
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(target)


def _read_coreml(path: str, facts: str, *_: str) -> None:
    """Write what a package holds, as Core ML would find it: inputs, outputs, operations, and whether its weights are finite."""
    import coremltools
    import numpy as np
    from coremltools.optimize.coreml import get_weights_metadata

    model = coremltools.models.MLModel(path, skip_model_load=True)
    spec = model.get_spec()
    inputs = {}
    for one in spec.description.input:
        held = one.type.multiArrayType
        bounds = [[each.lowerBound, each.upperBound] for each in held.shapeRange.sizeRanges]
        inputs[one.name] = bounds or [[size, size] for size in held.shape]
    blocks = [
        block for function in spec.mlProgram.functions.values() for block in function.block_specializations.values()
    ]
    operations = [one.type for block in blocks for one in block.operations if one.type != "const"]
    weights = [np.asarray(one.val) for one in get_weights_metadata(model, weight_threshold=0).values()]
    numbers = [one for one in weights if one.dtype.kind == "f"]
    Path(facts).write_text(
        json.dumps(
            {
                "inputs": inputs,
                "outputs": [one.name for one in spec.description.output],
                "n_operations": len(operations),
                "n_weights": sum(one.size for one in numbers),
                "finite": all(bool(np.isfinite(one).all()) for one in numbers),
                "version": f"specification {spec.specificationVersion}",
            }
        )
    )


_WORKS = {
    "to_executorch": _to_executorch,
    "run_executorch": _run_executorch,
    "to_litert": _to_litert,
    "run_litert": _run_litert,
    "time_litert": _time_litert,
    "to_coreml": _to_coreml,
    "read_coreml": _read_coreml,
}


if __name__ == "__main__":
    _WORKS[sys.argv[1]](*(sys.argv[2:] + [""] * 4)[:4])
