"""How does another bundle take the place of one that is served, without a request lost, and when doesn't it?

The new one is verified, exported and tried beside the old one, in a thread and a process of their own. It takes no request before
that, and the old one answers what it was asked already. What doesn't verify, takes other inputs, broke its contract, is older or
does worse on what was asked lately with labels is refused, and nothing changes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunus.core.errors import BundleError, ModelError, PrunusError
from prunus.report.record_file import load_record
from prunus.serve.refusal import Refusal
from prunus.serve.running.engine import Engine
from prunus.serve.running.served_model import Loaded, ServedModel, load_served
from prunus.serve.serve_settings import ServeSettings
from prunus.serve.traffic.betting import log_wealth_above
from prunus.serve.traffic.likeness_of_answers import worse_by_labels
from prunus.serve.traffic.model_traffic import Traffic
from prunus.serve.traffic.recent_answers import Recent
from prunus.serve.watch.json_logs import say

__all__ = ["Replacement"]

_MOST_REPLAYED = 256
_ENOUGH = math.log(1 / 0.05)


class Replacement:
    """Replaces the models of one server, one at a time, and keeps the last one for a roll-back.

    Args:
        made: makes a model with a queue of what was loaded.
        gone: is told of a model that answers no more.
    """

    def __init__(
        self,
        traffic: Traffic,
        settings: ServeSettings,
        made: Callable[[Loaded], ServedModel],
        gone: Callable[[ServedModel], None],
    ) -> None:
        self._traffic, self._settings, self._made, self._gone = traffic, settings, made, gone
        self._lock = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self.previous: ServedModel | None = None

    async def load(self, bundle: str | None = None, *, force: bool = False) -> dict[str, Any]:
        """Load a bundle in place of the pruned one of a pair, or the only one; return what is served now.

        Args:
            bundle: the name of a folder in ``settings.bundles``; default: what lies now where the served one was loaded from.
            force: also where it broke its contract or does worse; never where it doesn't verify or takes other inputs.

        Raises:
            Refusal: it isn't loaded, and says why.
        """
        if self._lock.locked():
            raise Refusal(409, "another bundle is being loaded: come again later", retry_after_s=5.0)
        async with self._lock:
            traffic = self._traffic
            old = traffic.pruned or traffic.first
            folder = self._folder(bundle, old)
            settings = _no_older(self._settings, old)
            loop = asyncio.get_running_loop()
            notes: list[str] = []
            try:
                loaded = await loop.run_in_executor(None, load_served, folder, traffic.name, settings, notes.append)
            except (BundleError, ModelError) as error:
                raise Refusal(422, f"not loaded, the old model goes on: {error}", field="bundle") from error
            if loaded.manifest.sha256 == old.manifest.sha256:
                return self._said(old, changed=False)
            labelled = [one for one, _ in zip(traffic.recent.labelled(), range(_MOST_REPLAYED), strict=False)]
            why = await loop.run_in_executor(None, _why_not, old, loaded, labelled, force)
            if why:
                raise Refusal(409, f"not loaded, the old model goes on: {why}", field="bundle")
            new = self._made(loaded)
            self._take(old, new)
            say("loaded", version=new.spec.version, instead_of=old.spec.version, notes=notes, forced=force)
            return self._said(new, changed=True)

    def back(self) -> ServedModel:
        """Let the model answer again that was replaced last.

        Raises:
            Refusal: there is none (409).
        """
        if self.previous is None or self._lock.locked():
            raise Refusal(409, "there is no earlier model to go back to, or one is being loaded")
        old, new = self._traffic.pruned or self._traffic.first, self.previous
        self.previous = None
        self._put(old, new)
        self._let_go(old)  # asked for twice, it doesn't come again
        return new

    async def drained(self) -> None:
        """Wait for the models that leave, and let the one that was kept go."""
        if self.previous is not None:
            await self.previous.retire()
        while self._leaving:
            await asyncio.wait(self._leaving)

    def _take(self, old: ServedModel, new: ServedModel) -> None:
        """Let ``new`` answer, keep ``old`` for a roll-back, and let the one go that was kept before."""
        self._put(old, new)
        leaving, self.previous = self.previous, old
        if leaving is not None:
            self._let_go(leaving)

    def _put(self, old: ServedModel, new: ServedModel) -> None:
        if self._traffic.pruned is old:
            self._traffic.pruned = new
        else:
            self._traffic.first = new
        self._traffic.begin_again()

    def _let_go(self, model: ServedModel) -> None:
        task = asyncio.get_running_loop().create_task(self._leave(model), name="leave")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, model: ServedModel) -> None:
        await model.retire()
        self._gone(model)

    def _folder(self, bundle: str | None, old: ServedModel) -> Path:
        if bundle is None:
            return old.folder
        root = self._settings.bundles
        if root is None:
            raise Refusal(409, "this server loads nothing by name: it was started without --bundles", field="bundle")
        if not bundle or bundle.startswith(".") or "/" in bundle or "\\" in bundle or "\x00" in bundle:
            raise Refusal(400, "expected the name of a folder in --bundles, without slashes", field="bundle")
        folder = root / bundle
        if folder.is_symlink() or not folder.is_dir():
            raise Refusal(404, f"there is no folder {bundle[:100]!r} in --bundles", field="bundle")
        inner = folder / "bundle"
        return inner if inner.is_dir() else folder

    def _said(self, model: ServedModel, *, changed: bool) -> dict[str, Any]:
        return {"name": self._traffic.name, "version": model.spec.version, "changed": changed}


def _no_older(settings: ServeSettings, old: ServedModel) -> ServeSettings:
    """Return the settings that let no bundle in that was signed as an older version than the served one."""
    version = None if old.found is None else old.found.version
    if settings.policy is None or version is None:
        return settings
    return replace(settings, policy=replace(settings.policy, min_version=version))


def _why_not(old: ServedModel, new: Loaded, labelled: Sequence[Recent], force: bool) -> str:
    """Return why a bundle isn't to take the place of one that is served; empty where it is."""
    for what in ("inputs", "outputs"):
        ours, theirs = ([one.describe() for one in getattr(spec, what)] for spec in (old.spec, new.spec))
        if ours != theirs:
            return f"its {what} are others, which clients don't know: expected {ours}, got {theirs}"
    if (old.spec.task, old.spec.class_names) != (new.spec.task, new.spec.class_names):
        return "its task or its classes are others, so its answers mean something else"
    if force:
        return ""
    record = new.folder.parent / "record.json"
    if new.folder.name == "bundle" and record.is_file():
        try:
            searches = load_record(record).searches
        except PrunusError as error:
            return f"the record of its run can't be read: {error}"
        if any(search.contract is not None and search.result is None for search in searches):
            return "its run didn't keep its contract"
    return _worse(old, new.engine, labelled)


def _worse(old: ServedModel, engine: Engine, labelled: Sequence[Recent]) -> str:
    """Return that a model does worse on what was asked lately, if that is shown at the level of 5 %."""
    counts = {0.0: 0, 0.5: 0, 1.0: 0}
    for recent in labelled:
        before = recent.answers.get(old.spec.version)
        if before is None or recent.labels is None:
            continue
        try:
            after = engine.run(recent.arrays)
        except PrunusError:
            return "it fails on a request that the old model answered lately"
        for worse in worse_by_labels(old.spec, before, after, recent.labels):
            counts[(1 + worse) / 2] += 1
    if log_wealth_above(counts, 0.5) >= _ENOUGH:
        return (
            f"it does worse on {sum(counts.values())} examples that were asked lately and have labels: "
            f"{counts[1.0]} only the old model gets right, {counts[0.0]} only the new one"
        )
    return ""
