"""Which tensor operations does the model run, and in which of its modules?

The model is traced to ATen operations on fake tensors: shapes, no values, no memory. Parameters and buffers are inputs of
the trace. Where fake tracing is impossible (control flow that looks at values) the trace runs on real tensors, and says so.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree
from torch.utils._mode_utils import no_dispatch

from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.quiet import quiet
from prunus.core.structures.forms import FLAT, Form, form_of, tensors_of
from prunus.core.structures.signature import NO_CALL, Signature, signature_of
from prunus.graph.tracing.eager_trace import MODULE, ModuleCall, Recorder
from prunus.graph.tracing.observe import SizeUse
from prunus.graph.tracing.remembered import Remembered
from prunus.graph.tracing.states import as_it_was, canonical_states, running_on
from prunus.graph.tracing.trace_overrides import StandIns, decompositions, put_back

if TYPE_CHECKING:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv


__all__ = ["ModuleCall", "Trace", "operation_name", "trace"]


@dataclass(frozen=True)
class Trace:
    """The operations of one forward pass.

    ``states`` names the first placeholders of ``graph_module`` (parameters and buffers, tied ones once); the other
    placeholders are the tensors among the model's inputs, in pytree order. Every node's ``meta`` has the value's shape under
    ``val``, and the module that runs it under ``custom``. ``uses`` says which attributes forward took sizes from; ``calls`` which
    value each module took first and which it gave back first. ``one_path`` says that other inputs may run other operations;
    ``reads`` are the values, made of inputs, whose numbers the model read while it ran: they are built into what came after.
    ``answer`` is what the model holds its tensors in, ``signature`` how it was called.
    """

    graph_module: fx.GraphModule
    states: tuple[str, ...]
    n_inputs: int
    notes: tuple[str, ...]
    uses: tuple[SizeUse, ...] = ()
    calls: tuple[ModuleCall, ...] = ()
    one_path: bool = False
    reads: tuple[fx.Node, ...] = ()
    recorded: bool = False
    answer: Form = FLAT
    signature: Signature = NO_CALL


class _Calls(list[ModuleCall]):
    """The runs of modules so far; ``node_of`` says which node of the trace made a tensor (none says so with symbols for sizes)."""

    node_of: Callable[[Tensor], fx.Node | None] = staticmethod(lambda value: None)

    def add(self, name: str, given: fx.Node | None, output: Any) -> None:
        made = self.first(output)
        if given is not None and made is not None:
            self.append(ModuleCall(name, given, made))

    def first(self, values: Any) -> fx.Node | None:
        tensor = next(iter(tensors_of(values)), None)
        return None if tensor is None else self.node_of(tensor)


def trace(
    model: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool = False,
    symbols: ShapeEnv | None = None,
    real: bool = True,
    memory: Remembered | None = None,
) -> Trace:
    """Return the operations that ``model(*inputs, **kwargs)`` runs in evaluation (or training) mode; the model isn't changed.

    Args:
        symbols: where the sizes of the inputs are to be symbols instead of numbers, what is asked about them is written down here.
        real: whether real tensors are taken where fake ones won't do.
        memory: what earlier traces of nearly the same model ran; the uses of attributes as sizes are missing then.

    Raises:
        ModelError: the model's forward fails on these inputs, or can't be traced with symbols for sizes (or on fake tensors alone).
    """
    states = canonical_states(model)
    leaves, spec = pytree.tree_flatten((tuple(inputs), dict(kwargs or {})))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    answer = FLAT

    def forward(values: list[Tensor], given: list[Tensor]) -> list[Tensor]:
        nonlocal answer
        queue = iter(given)
        filled = [next(queue) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        arguments, named = pytree.tree_unflatten(filled, spec)
        own = dict(zip(states, values, strict=True))
        with running_on(model, own):
            out = model(*arguments, **named)
            if training:
                _write_replaced(model, own)
        answer = form_of(out)
        return tensors_of(out)

    notes: list[str] = []
    one_path = False
    recorder = None
    calls = _Calls()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=symbols)
    try:
        light = Recorder(decompositions())
        from_memory = (
            memory.at_hand(model, light, calls, functools.partial(_again, mode)) if memory else contextlib.nullcontext()
        )
        with as_it_was(model), from_memory, _quiet(model, training, calls), mode:
            fake = [_fake(mode, value) for value in states.values()]
            given = [_fake(mode, t) if symbols is None else _of_any_size(mode, t, n) for n, t in enumerate(tensors)]
            with StandIns():
                if symbols is None:  # a third of the time that torch's tracer takes
                    calls.node_of = light.known
                    graph_module, uses = light.record(model, forward, fake, given)
                else:
                    # Which attribute a size comes from is asked by comparing numbers, and a symbol that is compared is settled.
                    tracer = make_fx(forward, decompositions(), tracing_mode="real", _allow_non_fake_inputs=True)
                    graph_module, uses = tracer(fake, given), []
                put_back(graph_module)
    except Exception as error:
        raise_if_out_of_memory(error)
        if symbols is not None:
            raise ModelError(f"the model can't be traced with symbols for sizes ({_first_line(error)})") from error
        if not real:
            raise ModelError(f"the model can't be traced on fake tensors ({_first_line(error)})") from error
        notes.append(f"traced on real tensors, since the model looks at values while it runs ({_first_line(error)})")
        try:
            calls.clear()
            with as_it_was(model), _quiet(model, training, calls):
                recorder = Recorder()
                calls.node_of = recorder.known
                # What runs for real may write for real: training counts batch statistics, or moves an average of weights.
                kept = set() if training else {name for name, _ in model.named_parameters()}
                given = [value.detach() if name in kept else value.detach().clone() for name, value in states.items()]
                graph_module, uses = recorder.record(model, forward, given, tensors)
            one_path = not _looks_only(error) or recorder.follows(len(states))
        except Exception as failure:
            raise_if_out_of_memory(failure)
            raise ModelError(
                f"the model's forward fails on inputs of shape {[tuple(t.shape) for t in tensors]}: {_first_line(failure)}; "
                "give inputs that the model takes"
            ) from failure
    reads = () if recorder is None else recorder.reads(len(states))
    return Trace(
        graph_module,
        tuple(states),
        len(tensors),
        tuple(notes),
        tuple(uses),
        tuple(calls),
        one_path,
        reads,
        recorder is not None,
        answer,
        signature_of(model, inputs, kwargs or {}),
    )


def _write_replaced(model: nn.Module, states: Mapping[str, Tensor]) -> None:
    """Copy each tensor that the model put in a state's place into the state: it has its axes."""
    now = dict(model.named_buffers())
    for name, value in states.items():
        held = now.get(name)
        if held is not None and held is not value and held.shape == value.shape:
            value.copy_(held)


def _looks_only(error: Exception) -> bool:
    """Tell whether tracing failed because the model asked a tensor for a number, which a recording sees too."""
    return isinstance(error, DataDependentOutputException)


def _fake(mode: FakeTensorMode, value: Tensor) -> Tensor:
    if type(value) in (Tensor, nn.Parameter, nn.Buffer) and value.layout == torch.strided and not value.is_quantized:
        return _again(mode, value)  # much quicker than asking the mode, which describes tensors of any kind
    return mode.from_tensor(value.detach())


def _again(mode: FakeTensorMode, value: Tensor) -> Tensor:
    """Return a fake tensor of the sizes of another one."""
    with no_dispatch():
        shape = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return FakeTensor(mode, shape, value.device)


def _of_any_size(mode: FakeTensorMode, value: Tensor, number: int) -> Tensor:
    from torch._dynamo.source import ConstantSource  # takes a second to import
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    free: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * value.dim())
    with no_dispatch():  # the mode would settle the sizes
        value = value.detach()
    return mode.from_tensor(value, source=ConstantSource(f"given_{number}"), symbolic_context=free)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def operation_name(node: fx.Node) -> str:
    """Return the name of the ATen operation that a node calls, in place or not; empty where it calls none."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    name: str = node.target.overloadpacket.__name__
    return name.rstrip("_")


@contextlib.contextmanager
def _quiet(model: nn.Module, training: bool, calls: _Calls) -> Iterator[None]:
    """The asked mode, plain kernels instead of fused ones, the running module's name on every node, and no words of torch's."""
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    stack: list[tuple[str, fx.Node | None]] = [("", None)]
    hooks = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, named: Any) -> None:
            stack.append((name, calls.first((arguments, named))))
            fx.traceback.current_meta["custom"] = {MODULE: name}

        return hook

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        calls.add(*stack.pop(), output)
        fx.traceback.current_meta["custom"] = {MODULE: stack[-1][0]}

    try:
        model.train()  # what is cached for evaluation is forgotten
        model.train(training)
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                hooks += [
                    module.register_forward_pre_hook(enter(name), with_kwargs=True),
                    module.register_forward_hook(leave),
                ]
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(False)
        with quiet(model), torch.no_grad(), fx.traceback.preserve_node_meta():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)
