"""What a library does to the stack that a thread handles signals on is undone when it is done."""

import ctypes
import subprocess
import sys

import pytest

from prunus.core.code.signal_stack import SignalStack, _sigaltstack, kept_signal_stack, signal_stack

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux is asked for that stack")

KILLED = """
import signal
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from prunus.ship.openvino_file import OpenVinoFile, OpenVinoModel
import openvino

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
model = openvino.Core().read_model(proto.SerializeToString())
openvino.save_model(model, "model.xml")
file = OpenVinoFile.at(Path())
first, second = OpenVinoModel(file), OpenVinoModel(file)
del first, second  # the first goes first: the second gives back a stack that is gone
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
signal.raise_signal(signal.SIGUSR1)
print("heard", len(heard))
"""


def parts(stack):
    return stack.begin, stack.flags, stack.size


def test_another_stack_is_there_inside_and_the_own_one_after():
    before = parts(signal_stack())
    room = ctypes.create_string_buffer(1 << 16)
    with pytest.raises(ZeroDivisionError), kept_signal_stack():
        _sigaltstack(ctypes.byref(SignalStack(ctypes.addressof(room), 0, len(room))), None)
        assert signal_stack().begin == ctypes.addressof(room)
        _ = 1 / 0
    assert parts(signal_stack()) == before


def test_a_process_that_used_openvino_twice_still_hears_signals(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", KILLED],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "heard 1\n"), done.stderr
