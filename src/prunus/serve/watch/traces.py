"""Where did a request's time go, for whoever follows it through several services?

With the extra ``otel``, each inference is a span of OpenTelemetry, a child of the one that the header ``traceparent`` names, with
two of its own: reading what was sent, and the wait for the model with the batch that it ran in. Where spans go is said by
OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prunus.core.code.extras import require

__all__ = ["NO_TRACES", "Traces"]


class Traces:
    """Makes spans; nothing where ``provider`` is None.

    Args:
        provider: a tracer provider of OpenTelemetry.
    """

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("prunus.serve")

    @classmethod
    def exported(cls, name: str) -> Traces:
        """Return traces that leave by OTLP over HTTP, in batches.

        Raises:
            MissingExtraError: OpenTelemetry isn't installed.
        """
        sdk = require("opentelemetry.sdk.trace", extra="otel")
        exporter = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", extra="otel")
        batches = require("opentelemetry.sdk.trace.export", extra="otel")
        resources = require("opentelemetry.sdk.resources", extra="otel")
        resource = resources.Resource.create({"service.name": "prunus", "prunus.model": name})
        provider = sdk.TracerProvider(resource=resource)
        provider.add_span_processor(batches.BatchSpanProcessor(exporter.OTLPSpanExporter()))
        return cls(provider)

    def request(self, headers: Mapping[bytes, bytes], model: str) -> AbstractContextManager[Any]:
        """Return the span of one inference, as a context that gives it; of None where nothing is traced."""
        if self._tracer is None:
            return _NOTHING
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carried = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        context = TraceContextTextMapPropagator().extract(carried)
        found: AbstractContextManager[Any] = self._tracer.start_as_current_span(
            "infer", context, kind=SpanKind.SERVER, attributes={"prunus.model": model}
        )
        return found

    def part(self, name: str) -> AbstractContextManager[Any]:
        """Return a span within the request's."""
        return _NOTHING if self._tracer is None else self._tracer.start_as_current_span(name)

    def end(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


_NOTHING = nullcontext()
NO_TRACES = Traces()
