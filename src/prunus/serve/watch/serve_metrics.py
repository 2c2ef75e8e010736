"""What does a server say of itself in numbers, for Prometheus?"""

from __future__ import annotations

from typing import Any

from prunus.core.code.extras import require
from prunus.serve.running.batcher import Ran

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
        self.waiting = made("Gauge", "waiting_requests", "Requests that wait for a model.")
        self.held = made("Gauge", "held_bytes", "Bytes of all requests that are read or wait.")
        self.made = made
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

    def page(self) -> tuple[str, bytes]:
        """Return the content type and the text that Prometheus reads."""
        return self._client.CONTENT_TYPE_LATEST, self._client.generate_latest(self.registry)
