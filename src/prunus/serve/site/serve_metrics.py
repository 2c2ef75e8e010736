"""What does a server say of itself in numbers, for Prometheus?"""

from __future__ import annotations

import math
from typing import Any

from prunus.core.code.extras import require
from prunus.serve.running.batcher import Ran
from prunus.serve.traffic.model_traffic import Traffic

__all__ = ["ServeMetrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServeMetrics:
    """Counters and histograms of one server, in a registry of its own."""

    def __init__(self) -> None:
        client = require("prometheus_client", extra="serve")
        self._client, self.registry = client, client.CollectorRegistry()

        def made(kind: str, name: str, words: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
            return getattr(client, kind)(f"prunus_{name}", words, labels, registry=self.registry, **options)

        self._requests = made("Counter", "requests", "Requests that were answered.", ("route", "status"))
        self._seconds = made(
            "Histogram", "request_seconds", "From a request's head to its answer.", ("route",), buckets=_SECONDS
        )
        self._batch = made("Histogram", "batch_requests", "Requests in a batch.", ("version",), buckets=_SIZES)
        self._examples = made("Counter", "examples", "Examples that a model answered.", ("version",))
        self._model = made(
            "Histogram", "model_seconds", "Seconds of a batch in the model.", ("version",), buckets=_SECONDS
        )
        self._waited = made(
            "Histogram", "queue_seconds", "Seconds that a batch's first request waited.", ("version",), buckets=_SECONDS
        )
        self._waiting = made("Gauge", "waiting_requests", "Requests that wait for a model.")
        self._held = made("Gauge", "held_bytes", "Bytes of all requests that are read or wait.")
        self._answers = made("Gauge", "answering", "1 for the model that answers by default.", ("version",))
        by = ("by",)
        self._compared = made("Gauge", "compared_examples", "Examples that both models answered.", by)
        self._worse = made(
            "Gauge", "worse_examples", "Examples that only the dense one gets right, or answers differ.", by
        )
        self._mean = made("Gauge", "worse_share", "Accuracy lost by labels, or the share of other decisions.", by)
        self._low = made("Gauge", "worse_share_low", "Its lower bound, which holds at every time.", by)
        self._high = made("Gauge", "worse_share_high", "Its upper bound, which holds at every time.", by)
        self._shown = made("Gauge", "shown", "1 where it is shown that the pruned model is no worse, -1 worse.", by)
        self._left_out = made("Gauge", "comparisons_left_out", "Requests that only one model was asked.")
        self._bound: dict[tuple[str, ...], Any] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (route, str(status))
        found = self._bound.get(key)
        if found is None:
            found = self._bound[key] = (self._requests.labels(*key), self._seconds.labels(route))
        found[0].inc()
        found[1].observe(seconds)

    def ran(self, version: str, ran: Ran) -> None:
        """Count one batch."""
        found = self._bound.get((version,))
        if found is None:
            found = tuple(one.labels(version) for one in (self._batch, self._examples, self._model, self._waited))
            self._bound[version,] = found
        batch, examples, model, waited = found
        batch.observe(ran.n_requests)
        examples.inc(ran.n_examples)
        model.observe(ran.seconds)
        waited.observe(max(ran.waited, 0.0))

    def forget(self, version: str) -> None:
        """Let go of the numbers of a model that is served no longer: a reload each minute isn't to fill the memory."""
        self._bound.pop((version,), None)
        for one in (self._batch, self._examples, self._model, self._waited):
            one.remove(version)

    def page(self, traffic: Traffic, held_bytes: int) -> tuple[str, bytes]:
        """Return the content type and the text that Prometheus reads."""
        self._waiting.set(sum(model.batcher.n_waiting for model in traffic.models))
        self._held.set(held_bytes)
        self._answers.clear()
        for model in traffic.models:
            self._answers.labels(model.spec.version).set(model is traffic.primary)
        self._left_out.set(traffic.n_beside_left_out)
        if traffic.comparison is not None:
            for by, test in (("labels", traffic.comparison.labels), ("answers", traffic.comparison.answers)):
                said = test.report()
                mean = said["drop" if by == "labels" else "disagreement"]
                self._compared.labels(by).set(said["n"])
                self._worse.labels(by).set(said["n_worse"])
                self._mean.labels(by).set(math.nan if mean is None else mean)
                self._low.labels(by).set(said["interval"][0])
                self._high.labels(by).set(said["interval"][1])
                self._shown.labels(by).set({None: 0, "no worse": 1, "worse": -1}[said["shown"]])
        return self._client.CONTENT_TYPE_LATEST, self._client.generate_latest(self.registry)
