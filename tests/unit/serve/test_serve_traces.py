"""A request's span is a child of its caller's, and says which version answered; without traces nothing is made."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from prunus.serve.watch.traces import Traces
from prunus.ship import read_manifest
from serve_stand_ins import ask, go, infer, served, small_bundle

__all__ = ["small_bundle"]

PATH = "/v2/models/small/infer"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "child"), [({"traceparent": PARENT}, True), ({}, False), ({"traceparent": "x\r"}, False)]
)
def test_the_span_of_a_request_is_a_child_of_its_caller_s(small_bundle, headers, child):
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))

    async def asked():
        site, app = served(small_bundle)
        site.traces = Traces(provider)
        good = await ask(app, "POST", PATH, infer([[1.0] * 6] * 2), headers)
        bad = await ask(app, "POST", PATH, b"{}", headers)
        return good.status, bad.status

    assert go(asked()) == (200, 400)
    spans = {(span.name, span.status.is_ok): span for span in kept.get_finished_spans()}
    request = next(
        span for span in kept.get_finished_spans() if span.name == "infer" and span.attributes.get("prunus.examples")
    )
    assert request.attributes["prunus.version"] == read_manifest(small_bundle).sha256[:12]
    assert request.attributes["prunus.examples"] == 2
    assert (f"{request.context.trace_id:032x}" == PARENT[3:35]) == child
    inner = [
        span for span in kept.get_finished_spans() if span.parent and span.parent.span_id == request.context.span_id
    ]
    assert {span.name for span in inner} == {"read", "answer"}
    assert ("infer", False) in spans  # the refused one
