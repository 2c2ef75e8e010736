"""LitServe with batching, beside which `prunus serve` is measured: a process for HTTP, one for the model.

Usage: python benchmarks/serving_litserve.py MODEL.onnx PORT BATCH_TIMEOUT mp|fast   (with the Python that has LitServe)
"""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls
import numpy as np


class Api(ls.LitAPI):
    """The model, asked with lists of numbers, up to 64 requests at once."""

    def setup(self, device: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):  # a type here would be read by FastAPI
        return np.asarray(request["data"], np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {"input": x})[0]

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output):  # nor here
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=float(sys.argv[3]))
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=sys.argv[4] == "fast")
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
