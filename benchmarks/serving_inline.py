"""The plainest server beside which `prunus serve` is measured: FastAPI that runs the model where it reads the request.

Usage: python benchmarks/serving_inline.py MODEL.onnx PORT
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def session(path: str) -> Any:
    """Return the model, with one thread that doesn't spin."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inline(path: str, port: int) -> None:
    """Serve with FastAPI, which runs the model where the request is read: nothing is between, and nothing is batched."""
    import uvicorn
    from fastapi import FastAPI, Request, Response

    model, app = session(path), FastAPI()

    async def infer(request: Request) -> Response:
        tree = json.loads(await request.body())
        tensor = tree["inputs"][0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (found,) = model.run(None, {"input": x})
        output = {"name": "output", "datatype": "FP32", "shape": list(found.shape), "data": found.reshape(-1).tolist()}
        return Response(json.dumps({"outputs": [output]}), media_type="application/json")

    infer.__annotations__ = {"request": Request}
    app.add_api_route("/infer", infer, methods=["POST"])
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", log_level="error", access_log=False)


if __name__ == "__main__":
    inline(sys.argv[1], int(sys.argv[2]))
