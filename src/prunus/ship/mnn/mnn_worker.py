"""How is MNN called without letting it write to our standard output, or end our process?

A script for a process of its own: ``convert OPTIONS...`` calls MNN's converter, ``run FILE INPUTS.npz OUTPUTS.npz`` answers every
array of inputs with one of outputs, on one thread. It imports nothing of prunus. The converter is called directly: MNN's own
``mnnconvert`` installs a package for logs and sends usage to its maker.
"""

from __future__ import annotations

import sys
from typing import Any

__all__: list[str] = []


def _convert(options: list[str]) -> None:
    import _tools  # type: ignore[import-not-found]

    _tools.mnnconvert(["mnnconvert", *options])


def _run(file: str, given: str, wanted: str) -> None:
    import MNN  # type: ignore[import-untyped]
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
    else:
        _run(*sys.argv[2:])
