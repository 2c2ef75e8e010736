"""How is MNN called without letting it write to our standard output, or end our process?

A script for a process of its own: ``convert OPTIONS...`` calls MNN's converter, ``run FILE INPUTS.npz OUTPUTS.npz`` answers every
array of inputs with one of outputs, on one thread; ``time FILE INPUTS.npz THREADS CLOCK`` reads how many calls to make, line by
line, and writes the seconds that they took. It imports nothing of prunus. The converter is called directly: ``mnnconvert``
installs a package for logs and sends usage to its maker.
"""

from __future__ import annotations

import sys
from typing import Any

__all__: list[str] = []


def _convert(options: list[str]) -> None:
    import _tools  # type: ignore[import-not-found]

    _tools.mnnconvert(["mnnconvert", *options])


def _time(file: str, given: str, threads: str, clock: str) -> None:
    import time

    import MNN  # type: ignore[import-untyped]
    import numpy as np

    now = time.process_time if clock == "processor" else time.perf_counter
    interpreter = MNN.Interpreter(file)
    session = interpreter.createSession({"backend": "CPU", "numThread": int(threads), "precision": "high"})
    with np.load(given) as batches:
        inputs = np.ascontiguousarray(batches[batches.files[0]], np.float32)
    taken = interpreter.getSessionInput(session)
    interpreter.resizeTensor(taken, inputs.shape)
    interpreter.resizeSession(session)
    host = MNN.Tensor(inputs.shape, MNN.Halide_Type_Float, inputs, MNN.Tensor_DimensionType_Caffe)
    answer = interpreter.getSessionOutput(session)
    array = np.zeros(answer.getShape(), np.float32)
    copied = MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
    for line in sys.stdin:
        start = now()
        for _ in range(int(line)):
            taken.copyFrom(host)
            interpreter.runSession(session)
            answer.copyToHostTensor(copied)
        print(f"seconds {now() - start:.9f}", flush=True)  # noqa: T201 - our end of a pipe reads it


def _run(file: str, given: str, wanted: str) -> None:
    import MNN
    import numpy as np

    interpreter = MNN.Interpreter(file)
    session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": "high"})

    def host(array: Any) -> Any:
        return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)

    outputs: dict[str, Any] = {}
    with np.load(given) as batches:
        for name in batches.files:
            inputs = np.ascontiguousarray(batches[name], np.float32)
            taken = interpreter.getSessionInput(session)
            interpreter.resizeTensor(taken, inputs.shape)
            interpreter.resizeSession(session)
            taken.copyFrom(host(inputs))
            interpreter.runSession(session)
            answer = interpreter.getSessionOutput(session)
            array = np.zeros(answer.getShape(), np.float32)
            copied = host(array)
            answer.copyToHostTensor(copied)
            outputs[name] = np.array(copied.getNumpyData()).reshape(array.shape)
    np.savez(wanted, allow_pickle=False, **outputs)


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        _convert(sys.argv[2:])
    elif sys.argv[1] == "time":
        _time(*sys.argv[2:])
    else:
        _run(*sys.argv[2:])
