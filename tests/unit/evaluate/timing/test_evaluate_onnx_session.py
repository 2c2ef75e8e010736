"""The exporter works without a word: what fails is raised, what it tries on the way is its own business."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx

onnxscript = pytest.importorskip("onnxscript")


class Talking(nn.Module):
    """Makes the exporter's own parts talk while it traces."""

    def forward(self, x):
        from onnxscript.optimizer._constant_folding import _reference_evaluator

        print("Applied 3 of general pattern rewrite rules.")  # noqa: T201 - as onnxscript does
        _reference_evaluator.evaluate("", "Reshape", 13, np.zeros(3), np.array([2, 2]))
        logging.getLogger("torch.onnx._internal").warning("torchvision is not installed")
        return x * 2


def test_an_export_says_nothing(capfd, monkeypatch):
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler())  # as outside of the tests: warnings are printed
    before = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    inputs = torch.randn(2, 3)
    answer = OnnxModel(export_onnx(Talking(), inputs))(inputs)
    assert torch.equal(answer, inputs * 2)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert before == {name: logging.getLogger(name).level for name in before}, "left as it was"


def test_what_can_not_be_exported_is_one_line():
    class Undecided(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ModelError, match="can't be exported to ONNX") as caught:
        export_onnx(Undecided(), torch.randn(2, 3))
    assert "\n" not in str(caught.value)


def test_the_line_is_what_the_model_said_and_not_what_the_exporter_made_of_it():
    class Refuses(nn.Module):
        def forward(self, x):
            raise ValueError("three channels are needed\nand more words")

    with pytest.raises(ModelError, match=r"exported to ONNX: three channels are needed$"):
        export_onnx(Refuses(), torch.randn(2, 3))
