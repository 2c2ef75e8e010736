"""Does a model stay what was promised when it is exported in 8-bit whole numbers?

The file is what is tested: it answers through its runtime, and the task observes its answers as it does a model's. Ranges are read
off calibration examples, layers go back to float until validation examples suggest that the promise holds, and test examples, which
chose nothing, decide. One test is made, of one file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from torch import Tensor, nn

from prunus.core.batch import Batch
from prunus.core.errors import DataError, ModelError, RecipeError
from prunus.core.recipes.shipping.quantize_section import Quantize
from prunus.core.recipes.target_contract import Contract
from prunus.data import DrawnSource, Examples
from prunus.evaluate import NonInferiority, noninferiority, observe, promises
from prunus.evaluate.harm import check_margin
from prunus.evaluate.timing.onnx_session import named_tensors
from prunus.ship import Bundle
from prunus.ship.quantize.file_model import FileModel, raw_batch
from prunus.ship.quantize.int8_runtime import F, Feed, Int8Runtime
from prunus.ship.quantize.put_back import choose
from prunus.tasks import Observed, default_metrics, metrics

__all__ = ["Int8Examples", "Int8File", "model_of_file", "promise_of", "quantise"]

_BATCH = 32
_PROBED = 64
"""Examples on which each layer alone is measured."""

Note = Callable[[str], None]
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Int8Examples:
    """What ranges are read off, what chooses, and what decides."""

    calibration: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Int8File(Generic[F]):
    """An int8 file, which layers of it are in float, and what was shown on test examples."""

    file: F
    facts: dict[str, Any]
    observed: Observed

    @property
    def kept(self) -> bool:
        """Whether the promise was shown to hold."""
        return bool(self.facts["test"]["kept"])


def promise_of(settings: Quantize, contract: Contract | None, task: str) -> Contract:
    """Return what is promised of the int8 file: what its section says, then the run's contract, then a point of the first metric.

    Raises:
        RecipeError: no drop is given of a metric that is no share.
    """
    known = contract or Contract(metric=default_metrics(task)[0])
    metric = settings.metric or known.metric
    if metric not in metrics:
        raise RecipeError(f"quantize.metric must be one that is evaluated: got {metric!r}")
    said = settings.max_drop or (contract.max_drop if contract is not None and metric == contract.metric else None)
    if said is None and not metrics[metric].is_share:
        raise RecipeError(
            f"int8 needs to know how much {metric} may drop, since it is no share: set quantize.max_drop (--max-drop)"
        )
    if said is not None:
        check_margin(metric, said, key="quantize.max_drop" if settings.max_drop else "contract.max_drop")
    return Contract(
        metric=metric, max_drop=0.01 if said is None else said, confidence=settings.confidence or known.confidence
    )


def quantise(
    runtime: Int8Runtime[F],
    bundle: Bundle,
    file: F,
    dense: nn.Module,
    examples: Int8Examples,
    settings: Quantize,
    promise: Contract,
    *,
    seed: int = 0,
    bootstrap: int = 1000,
    tick: Tick | None = None,
    note: Note | None = None,
) -> Int8File[F]:
    """Return an exported file in int8 that keeps a promise against ``dense``, or came nearest to it, and what was shown of it.

    Args:
        runtime: makes the file, and is asked what it answers.
        file: the bundle's file in float.
        dense: answers the same examples.

    Raises:
        DataError: there are no calibration or no test examples.
        ModelError: the model can't be quantised, or no choice of layers promises to keep.
        RecipeError: the runtime hasn't got the method, or a layer that is to stay in float.
    """
    for name, part in (("calibration", examples.calibration), ("test", examples.test)):
        if len(part) == 0:
            raise DataError(f"int8 needs {name} examples: got none; raise data.split.{name}")
    ready = runtime.prepared(file)
    batches = list(_some(examples.calibration, settings.calibration))
    int8 = runtime.int8(ready, settings.method, [_feed(bundle, batch) for batch in batches])
    unknown = [name for name in settings.keep_float if name not in int8.layers]
    if unknown:
        raise RecipeError(
            f"quantize.keep_float names {unknown[0]!r}, which is no layer of the file: it has {', '.join(int8.layers)}"
        )
    chooses = examples.validation if len(examples.validation) else examples.calibration
    task = examples.test.task
    reference = {"chooses": observe(dense, chooses, task), "test": observe(dense, examples.test, task)}

    def compared(observed: Observed, part: str) -> NonInferiority:
        return noninferiority(
            reference[part],
            observed,
            task,
            metric=promise.metric,
            max_drop=promise.max_drop,
            confidence=promise.confidence,
            bootstrap=bootstrap,
            seed=seed,
        )

    guided: list[NonInferiority] = []

    def keeps(candidate: F) -> bool:
        found = compared(observe(model_of_file(runtime, bundle, candidate, chooses), chooses, task), "chooses")
        guided.append(found)
        return promises(found, len(examples.test))

    probes = [raw_batch(bundle, batch.inputs) for batch in _some(examples.calibration, _PROBED)]

    def answers(candidate: F) -> list[Tensor]:
        session = runtime.session(candidate)
        return [value for probe in probes for value in session(probe)]

    chosen = choose(int8, answers, answers(ready), keeps, always=settings.keep_float, tick=tick)
    if chosen is None:
        last, whole = (
            guided[0],
            compared(observe(model_of_file(runtime, bundle, ready, chooses), chooses, task), "chooses"),
        )
        raise ModelError(
            f"int8 isn't worth it here: whatever stays in float, {promise.metric} won't stay within {promise.max_drop:g} "
            f"of the dense model's {last.dense:.4g}: on {last.n} examples that choose it is {last.pruned:.4g} all in int8, and "
            f"{whole.pruned:.4g} all in float; allow a larger drop, or train longer after pruning"
        )
    observed = observe(model_of_file(runtime, bundle, chosen.file, examples.test), examples.test, task)
    facts = {
        "method": int8.method,
        "runtime": runtime.called,
        "n_calibration": sum(len(batch.index) for batch in batches),
        "n_layers": len(int8.layers),
        "in_float": list(chosen.in_float),
        "errors": dict(sorted(chosen.errors.items(), key=lambda item: -item[1])),
        "n_tried": chosen.n_tried,
        "validation": guided[-1].to_dict(),
        "test": compared(observed, "test").to_dict(),
        "float_bytes": len(file),
        "size_bytes": len(chosen.file),
    }
    if note is not None and chosen.in_float:
        note(f"{len(chosen.in_float)} of {len(int8.layers)} layers stay in float: {', '.join(chosen.in_float[:5])}")
    return Int8File(chosen.file, facts, observed)


def model_of_file(runtime: Int8Runtime[F], bundle: Bundle, file: F, examples: Examples) -> nn.Module:
    """Return a file as what observes examples calls it."""
    return FileModel(bundle, runtime.session(file), scaled_targets=not isinstance(examples.source, DrawnSource))


def _some(examples: Examples, most: int) -> Sequence[Batch]:
    """Return the first examples, in batches."""
    found: list[Batch] = []
    n = 0
    for batch in examples.batches(min(_BATCH, most)):
        found.append(batch)
        n += len(batch.index)
        if n >= most:
            break
    return found


def _feed(bundle: Bundle, batch: Batch) -> Feed:
    """Return what a file is given for a batch."""
    names, given = named_tensors(raw_batch(bundle, batch.inputs))
    return {name: value.detach().cpu().numpy() for name, value in zip(names, given, strict=True)}
