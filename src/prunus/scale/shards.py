"""How is a checkpoint pruned that is larger than memory?

Tensor by tensor, in pieces that the processor's cache holds: once to find the threshold, and once more to set the rest to zero
and to write to its place in the new shard. While one shard is flushed, the next is worked on. Every shard is written beside its
target and renamed, so what is there is whole, and a run that was killed goes on with those that aren't there.
"""

from __future__ import annotations

import fnmatch
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunus.core.code.imports import one_line
from prunus.core.errors import OutputError, RecipeError, WeightsError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.disk_room import check_room
from prunus.core.files.json_text import JsonError, read_json_file
from prunus.core.files.plain_files import (
    atomic_path,
    clear_leftovers,
    explain_os_error,
    folder_lock,
    is_leftover,
    remove,
    write_json,
)
from prunus.core.text import plain, shown
from prunus.scale.depth import drop_from_config, layer_prefix, renamed
from prunus.scale.magnitudes import FLOATS
from prunus.scale.resume import STATE, State
from prunus.scale.rewrite import Settings, write_shard
from prunus.scale.shard_files import Checkpoint, Shard, read_checkpoint

__all__ = ["EXCLUDED", "ShardsReport", "prune_shards"]

EXCLUDED = ("*embed*", "*lm_head*", "*wte*", "*wpe*", "*norm*", "*router*")
"""Tables to look up in, the head, norms and routers: few numbers that matter much."""

_AT_ONCE = 2
"""Shards: while one is flushed to the disk, the next one is worked on."""


@dataclass(frozen=True)
class ShardsReport:
    """What was done: counts over the pruned tensors, and bytes over all. ``seconds`` and ``shards_resumed`` are of this call."""

    tensors_pruned: int
    weights: int
    weights_kept: int
    layers_dropped: tuple[int, ...]
    bytes_read: int
    bytes_written: int
    seconds: float
    shards: int
    shards_resumed: int

    def __str__(self) -> str:
        pruned = f"{self.weights_kept:,} of {self.weights:,} weights stay in {self.tensors_pruned} tensors"
        dropped = f", {len(self.layers_dropped)} layers left" if self.layers_dropped else ""
        return f"{pruned}{dropped}; {self.bytes_read / 1e9:.2f} GB read, {self.bytes_written / 1e9:.2f} GB in {self.seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def prune_shards(
    source: Path,
    output: Path,
    *,
    keep_fraction: float | None = None,
    n_m: tuple[int, int] | None = None,
    drop_layers: Sequence[int] = (),
    layers: str | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = EXCLUDED,
    memory_bytes: int = 1 << 28,
    workers: int = 2,
    resume: bool = False,
    listener: Listener = silent,
) -> ShardsReport:
    """Write the pruned checkpoint of the folder ``source`` to the folder ``output``, and return what was done.

    Args:
        keep_fraction: share of each matrix that stays, the largest absolute values, exactly; ties keep what comes first.
        n_m: instead: N kept of every M neighbours along the last dimension.
        drop_layers: numbers of whole layers that leave; the others are numbered anew, and ``config.json`` follows.
        layers: what the layers are called, like ``model.layers``; default: the largest numbered list.
        include: name patterns (fnmatch) of what may be pruned: matrices and stacks of them, of 16 or 32 bits.
        exclude: name patterns that stay whole.
        memory_bytes: most bytes of tensors in memory at once, over all workers, copies included.
        workers: tensors that are worked on at once.
        resume: go on with what a killed run left in ``output``.

    Raises:
        RecipeError: no amount, two, one out of range, an M that doesn't divide, a pattern or layer that fits nothing.
        WeightsError: ``source`` isn't a whole checkpoint, or holds a number that isn't finite.
        OutputError: ``output`` holds something else, or the disk is too small.
    """
    started = time.perf_counter()
    workers = max(1, workers)
    # A piece has up to three copies of its size at work: its bytes, the bits without sign, what lies inside the bracket.
    piece_bytes = max(1 << 16, memory_bytes // (3 * workers))
    settings = Settings(keep_fraction, n_m, tuple(drop_layers), layers, tuple(include), tuple(exclude), piece_bytes)
    _check(settings)
    checkpoint = read_checkpoint(source)
    names, n_layers = _names(checkpoint, settings)
    chosen = _chosen(checkpoint, settings, names)
    state = _checked(checkpoint, output, settings, resume)
    with folder_lock(output):
        clear_leftovers(output)
        # An index, headers and configs come on top of the tensors: a hundredth is more than they take.
        check_room(
            output, math.ceil(1.01 * _left(checkpoint, names, state)), "the pruned checkpoint", "free some space"
        )
        state.write()
        resumed = _write_all(checkpoint, output, settings, names, chosen, workers, state, listener)
        _write_rest(checkpoint, output, settings, names, n_layers)
    (output / ".lock").unlink(missing_ok=True)
    for path, why in checkpoint.left_out:
        listener(Event("warning", "shards", f"{plain(path.name)} isn't copied: {why}"))
    written = sum(t.size_bytes for t in checkpoint.tensors if t.name in names)
    pruned = [tensor for tensor in checkpoint.tensors if tensor.name in chosen]
    dropped = tuple(sorted(set(drop_layers)))
    return ShardsReport(
        len(pruned), sum(t.n_units for t in pruned), sum(map(settings.n_kept, pruned)), dropped, checkpoint.size_bytes, written,
        time.perf_counter() - started, len(checkpoint.shards), resumed,
    )  # fmt: skip


def _check(settings: Settings) -> None:
    share, n_m = settings.keep_fraction, settings.n_m
    if share is not None and n_m is not None:
        raise RecipeError("give one of keep_fraction and n_m, not both")
    if share is None and n_m is None and not settings.drop_layers:
        raise RecipeError("nothing to do: give keep_fraction, n_m or layers to drop")
    if share is not None and not 0 < share <= 1:
        raise RecipeError(f"keep_fraction must be in (0, 1], the share of each matrix that stays: got {share!r}")
    if n_m is not None and not 1 <= n_m[0] <= n_m[1]:
        raise RecipeError(f"n_m must be N kept of M, 1 <= N <= M, like 2:4: got {n_m[0]}:{n_m[1]}")


def _names(checkpoint: Checkpoint, settings: Settings) -> tuple[dict[str, str], int]:
    """Return the new name of each tensor that stays, and how many layers there were (0: nobody asked)."""
    names = [tensor.name for tensor in checkpoint.tensors]
    if not settings.drop_layers:
        return {name: name for name in names}, 0
    prefix, n_layers = layer_prefix(checkpoint.tensors, settings.layers)
    found = renamed(names, prefix, n_layers, settings.drop_layers)
    if len(set(found.values())) < len(found):
        twice = next(name for name, count in Counter(found.values()).items() if count > 1)
        raise WeightsError(
            f"{checkpoint.folder}: two tensors would be called {shown(twice)}; rename one in the checkpoint"
        )
    return found, n_layers


def _chosen(checkpoint: Checkpoint, settings: Settings, names: dict[str, str]) -> set[str]:
    """Return the names of the tensors that are pruned."""
    if settings.keep_fraction is None and settings.n_m is None:
        return set()
    known = [tensor.name for tensor in checkpoint.tensors]
    for pattern in settings.include:
        if not fnmatch.filter(known, pattern):
            raise RecipeError(f"include: {pattern!r} fits no tensor; the first one is called {known[0]!r}")
    chosen = set()
    for tensor in checkpoint.tensors:
        fits = any(fnmatch.fnmatchcase(tensor.name, pattern) for pattern in settings.include)
        barred = any(fnmatch.fnmatchcase(tensor.name, pattern) for pattern in settings.exclude)
        if (
            tensor.name in names
            and fits
            and not barred
            and len(tensor.shape) >= 2
            and tensor.dtype in FLOATS
            and tensor.n_units
        ):
            chosen.add(tensor.name)
            if settings.n_m is not None and tensor.shape[-1] % settings.n_m[1]:
                n, m = settings.n_m
                raise RecipeError(
                    f"{n}:{m} needs rows that {m} divides: {tensor.name} has {tensor.shape[-1]}; exclude it"
                )
    if not chosen:
        raise RecipeError(
            f"no tensor is left to prune: include {list(settings.include)} and exclude {list(settings.exclude)} leave no matrix "
            f"of {', '.join(FLOATS)}"
        )
    return chosen


def _checked(checkpoint: Checkpoint, output: Path, settings: Settings, resume: bool) -> State:
    """Return what is done already in the output folder, after checking that it is there for this run."""
    kept = {key: value for key, value in asdict(settings).items() if key != "piece_bytes"}
    state = State(output, checkpoint, kept)
    if output.resolve() == checkpoint.folder.resolve():
        raise OutputError(f"{output}: the output must be another folder than the input")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: expected a folder to write to: got a file")
    if os.path.lexists(state.path):
        if not resume:
            raise OutputError(f"{output} holds a run that was stopped: add --resume to go on, or choose another folder")
        state.read()
        ours = {shard.path.name for shard in checkpoint.shards} | {path.name for path in checkpoint.others}
        ours |= {STATE, ".lock", checkpoint.index_name or STATE}
        if odd := [path for path in output.iterdir() if path.name not in ours and not is_leftover(path)]:
            raise OutputError(f"{output} holds {shown(odd[0].name)}, which is none of the run's: move it away")
    elif output.exists() and any(not is_leftover(path) and path.name != ".lock" for path in output.iterdir()):
        raise OutputError(f"{output} isn't empty: choose another folder, or empty it")
    return state


def _left(checkpoint: Checkpoint, names: dict[str, str], state: State) -> int:
    """Return how many bytes of tensors are still to be written."""
    return sum(
        tensor.size_bytes
        for shard in checkpoint.shards
        for tensor in shard.tensors
        if tensor.name in names and shard.path.name not in state.done
    )


def _write_all(
    checkpoint: Checkpoint,
    output: Path,
    settings: Settings,
    names: dict[str, str],
    chosen: set[str],
    workers: int,
    state: State,
    listener: Listener,
) -> int:
    """Write every shard that isn't there as it was written; return how many were."""
    resumed, done = 0, 0
    total = sum(tensor.size_bytes for tensor in checkpoint.tensors if tensor.name in names)
    listener(Event("start", "shards", total=total))
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(_AT_ONCE) as writers:

        def write(shard: Shard) -> tuple[int, bool]:
            """Write one shard; return how many bytes of tensors stay of it, and whether it was there already."""
            tensors, target = [tensor for tensor in shard.tensors if tensor.name in names], output / shard.path.name
            there = state.holds(target)
            if tensors and not there:
                if target.name in state.done:
                    listener(Event("note", "shards", f"{target.name} isn't as it was written: it is written again"))
                remove(target)
                state.finish(target, write_shard(shard, tensors, target, settings, names, chosen, pool))
            return sum(tensor.size_bytes for tensor in tensors), there

        try:
            for future in [writers.submit(write, shard) for shard in checkpoint.shards]:
                size, there = future.result()
                resumed, done = resumed + there, done + size
                listener(Event("progress", "shards", done=done >> 20, total=total >> 20))
        except BaseException:  # what hasn't begun doesn't, so that an interrupt needn't wait for whole shards
            writers.shutdown(wait=False, cancel_futures=True)
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    listener(Event("end", "shards", facts={"seconds": time.perf_counter() - started}))
    return resumed


def _write_rest(checkpoint: Checkpoint, output: Path, settings: Settings, names: dict[str, str], n_layers: int) -> None:
    """Write the index, the config and the other files, then forget the state of the run."""
    for path in checkpoint.others:
        if path.name == "config.json" and settings.drop_layers:
            try:
                config = read_json_file(path.resolve())  # a link is one within the checkpoint
            except (OSError, JsonError) as error:
                raise WeightsError(f"{path}: the config is no readable JSON ({one_line(error)}); repair it") from error
            if not isinstance(config, dict):
                raise WeightsError(f"{path}: the config must be a mapping: got {type(config).__name__}; repair it")
            write_json(output / path.name, drop_from_config(config, n_layers, settings.drop_layers))
            continue
        try:
            with atomic_path(output / path.name) as temporary:
                shutil.copyfile(path, temporary)
        except OSError as error:
            raise explain_os_error(error, output / path.name) from error
    if checkpoint.index_name is not None:
        left = {names[name]: file for name, file in checkpoint.index["weight_map"].items() if name in names}
        size = sum(tensor.size_bytes for tensor in checkpoint.tensors if tensor.name in names)
        metadata = {**checkpoint.index.get("metadata", {}), "total_size": size}
        write_json(output / checkpoint.index_name, {"metadata": metadata, "weight_map": left})
    (output / STATE).unlink()
