"""How does a bundle become something that answers requests, and what is known of it then?

It is verified, exported once, loaded, and tried on inputs of its own before it gets a request: what it gives is learnt from that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from prunus.apply.traced.limits import Span
from prunus.core.calls import arguments
from prunus.core.errors import ModelError, RecipeError
from prunus.data import Scaler
from prunus.serve.running.batcher import Answer, Batcher, Ran
from prunus.serve.running.engine import Engine, OnnxEngine, TorchEngine
from prunus.serve.running.engine_cache import cache_folder, exported_once
from prunus.serve.running.id_bounds import id_bounds
from prunus.serve.running.verified_bundle import verified
from prunus.serve.serve_settings import ClientLimits, ServeSettings
from prunus.serve.wire.datatypes import datatype_of
from prunus.serve.wire.tensor_data import Array
from prunus.serve.wire.tensor_specs import ModelSpec, TensorSpec, input_specs
from prunus.ship import Manifest, load_bundle
from prunus.ship.inputs import made
from prunus.ship.signing import Verified

__all__ = ["Loaded", "ServedModel", "load_served", "version_of"]


@dataclass(frozen=True)
class Loaded:
    """A bundle's engine and what is known of it, before it has a queue."""

    folder: Path
    manifest: Manifest
    spec: ModelSpec
    engine: Engine
    alone: bool
    found: Verified | None = None


class ServedModel:
    """A loaded model with its queue; made in the thread of the event loop.

    Args:
        ran: is told of every batch.
        in_flight: says how many requests the server is at work on.
    """

    def __init__(
        self,
        loaded: Loaded,
        limits: ClientLimits,
        ran: Callable[[Ran], None] = lambda _: None,
        in_flight: Callable[[], int] = lambda: 2,
    ) -> None:
        self.folder, self.manifest, self.spec, self.engine = loaded.folder, loaded.manifest, loaded.spec, loaded.engine
        self.found = loaded.found
        self.batcher = Batcher(loaded.engine, limits, alone=loaded.alone, ran=ran, in_flight=in_flight)

    async def answer(self, arrays: list[Array], n_bytes: int, timeout_s: float) -> Answer:
        """Return the model's outputs; see :meth:`Batcher.answer`."""
        return await self.batcher.answer(arrays, n_bytes, timeout_s)

    async def retire(self) -> None:
        """Answer what was asked already, then let go of the model."""
        await self.batcher.drained()
        self.batcher.close()


def version_of(manifest: Manifest) -> str:
    """Return what a bundle's version is called: the beginning of its hash, so that it says exactly which one answers."""
    return manifest.sha256[:12]


def load_served(folder: Path, name: str, settings: ServeSettings, say: Callable[[str], None]) -> Loaded:
    """Return a bundle's model, ready to answer; it takes seconds, more where it wasn't exported before.

    Raises:
        BundleError: the bundle isn't what it says, or takes what no request can hold.
        ModelError: it can't run.
        RecipeError: it can't be exported, and ONNX Runtime was asked for.
    """
    checked = verified(folder, settings.policy)
    manifest = checked.manifest
    wide = manifest.scaler is not None and Scaler.from_dict(manifest.scaler).wide
    inputs = input_specs(manifest, wide=wide)
    engine, bounds = _engine(folder, manifest, inputs, settings, wide, say)
    inputs = tuple(replace(spec, below=bound) for spec, bound in zip(inputs, bounds, strict=True))
    outputs, alone = _tried(engine, manifest, inputs)
    spec = ModelSpec(
        name, version_of(manifest), inputs, outputs, manifest.task, engine.platform, tuple(manifest.class_names)
    )
    return Loaded(folder, manifest, spec, engine, alone, checked.found)


def _engine(
    folder: Path,
    manifest: Manifest,
    inputs: Sequence[TensorSpec],
    settings: ServeSettings,
    wide: bool,
    say: Callable[[str], None],
) -> tuple[Engine, list[int | None]]:
    why = "the columns need double precision, and its ONNX file takes single" if wide else ""
    threads = settings.threads or len(os.sched_getaffinity(0))
    if settings.runtime != "torch" and not wide:
        try:
            kept = exported_once(
                folder, manifest.sha256, cache_folder(settings.cache), trust_code=settings.trust_code, say=say
            )
        except ModelError as error:
            why = str(error)
        else:
            names = [spec.name for spec in inputs]
            return OnnxEngine(kept.file, names, threads=threads), id_bounds(kept.file, names)
    if settings.runtime == "onnxruntime":
        raise RecipeError(f"{folder} can't be served by ONNX Runtime: {why}; serve it with --runtime torch")
    note = f"served by torch, not by ONNX Runtime: {why}" if why else "served by torch, as asked for"
    say(note)
    bundle = load_bundle(folder, trust_code=settings.trust_code, sha256=manifest.sha256)
    return TorchEngine(bundle, note), [None] * len(inputs)


def _tried(engine: Engine, manifest: Manifest, inputs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], bool]:
    """Return what the model gives, and whether requests must run one by one, since a batch changes answers."""
    given = _example(manifest, inputs)
    together = engine.run(given)
    apart = [engine.run([array[row : row + 1] for array in given]) for row in range(len(given[0]))]
    for number, output in enumerate(together):
        if any(len(one) != len(together) or one[number].ndim != output.ndim or not output.ndim for one in apart):
            raise ModelError(
                "the model's answer to a batch hasn't the form of its answers to each example: it can't be served"
            )
    alone = not all(
        output.shape[0] == len(given[0])
        and np.concatenate(ones).shape == output.shape
        and np.allclose(
            np.concatenate(ones), output, rtol=1e-3, atol=1e-5 + 1e-3 * float(np.abs(output).max(initial=0))
        )
        for output, ones in zip(together, zip(*apart, strict=True), strict=True)
    )
    names = ["output"] if len(together) == 1 else [f"output_{number}" for number in range(len(together))]
    free = any(spec.fixed is None for spec in inputs)
    return tuple(
        TensorSpec(name, datatype_of(output.dtype), tuple(_size(size, free) for size in output.shape[1:]))
        for name, output in zip(names, together, strict=True)
    ), alone


def _size(size: int, free: bool) -> Span:
    """Return what is known of an output's size: where an input's are free, it may follow them."""
    return Span(0, None) if free else Span(size, size)


def _example(manifest: Manifest, inputs: Sequence[TensorSpec]) -> list[Array]:
    positional, named = arguments(made(manifest.takes, 3, "serve"))
    values: list[Tensor] = [*positional, *named.values()]
    return [value.numpy().astype(spec.dtype, copy=False) for value, spec in zip(values, inputs, strict=True)]
