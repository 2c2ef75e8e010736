"""The exporter works without a word: what fails is raised, what it tries on the way is its own business."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from prunus.apply.traced.limits import BATCH, Span
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


def test_an_error_without_words_is_told_by_its_kind():
    class Silent(nn.Module):
        def forward(self, x):
            raise NotImplementedError

    with pytest.raises(ModelError, match=r"exported to ONNX: NotImplementedError$"):
        export_onnx(Silent(), torch.randn(2, 3))


class Sums(nn.Module):
    """Answers about two inputs whose middle sizes are free, with two outputs."""

    def forward(self, one, two):
        return one.sum(1) * 2, (two * torch.arange(3.0)).sum((1, 2))


@pytest.mark.parametrize("span", [Span(1, None, "n"), Span(1, 5, "n"), Span(3, None, "n"), Span(2, 4, "n")], ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_a_file_answers_for_the_sizes_of_its_spans_and_refuses_all_others(span, which):
    """The free dimension lies in the first input or in the second, at another place."""
    batch = Span(1, None, BATCH)
    fixed = [[batch, Span(4, 4), Span(3, 3)], [batch, Span(4, 4), Span(3, 3)]]
    fixed[which][1] = span
    example = (torch.randn(2, 4, 3), torch.randn(2, 4, 3))
    exported = OnnxModel(export_onnx(Sums(), example, fixed))
    for size in range(1, 8):
        given = list(example)
        given[which] = torch.randn(3, size, 3)
        given[1 - which] = torch.randn(3, 4, 3)
        if size in span:
            for made, expected in zip(exported.outputs(tuple(given)), Sums()(*given), strict=True):
                torch.testing.assert_close(made, expected)
        else:
            with pytest.raises(ModelError, match="ONNX Runtime fails on"):
                exported(tuple(given))


def test_sizes_of_one_name_are_one_size_and_a_file_names_what_goes_in_and_out():
    batch, span = Span(1, None, BATCH), Span(2, 6, "length")
    spans = [[batch, span, Span(3, 3)], [batch, span, Span(3, 3)]]
    example = {"one": torch.randn(2, 4, 3), "two": torch.randn(2, 4, 3)}
    exported = OnnxModel(export_onnx(Sums(), example, spans))
    assert [value.name for value in exported.session.get_inputs()] == ["one", "two"]
    assert [value.name for value in exported.session.get_outputs()] == ["output_0", "output_1"]
    assert [value.shape for value in exported.session.get_inputs()] == [["batch", "length", 3]] * 2
    given = {"two": torch.randn(1, 5, 3), "one": torch.randn(1, 5, 3)}
    for made, expected in zip(exported.outputs(given), Sums()(**given), strict=True):
        torch.testing.assert_close(made, expected)
    alone = OnnxModel(export_onnx(nn.Linear(3, 2), torch.randn(2, 3)))
    assert [value.name for value in alone.session.get_inputs()] == ["input"]
    assert [value.name for value in alone.session.get_outputs()] == ["output"]


def test_an_input_that_is_not_read_is_not_in_the_file_and_need_not_be_left_out():
    class First(nn.Module):
        def forward(self, one, two):
            return one * 2

    given = (torch.randn(2, 3), torch.randn(2, 5))
    exported = OnnxModel(export_onnx(First(), given))
    assert torch.equal(exported(given), given[0] * 2)
