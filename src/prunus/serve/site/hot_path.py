"""How does an inference request come in and its answer go out, with as little between as can be?

An ASGI application around the pages: what is asked for inference is answered here, all else there. Whoever isn't admitted reaches
neither, and whatever goes wrong leaves as JSON.
"""

from __future__ import annotations

import logging
import secrets
from time import perf_counter
from typing import Any

from prunus.core.code.imports import one_line
from prunus.core.errors import raise_if_out_of_memory
from prunus.serve.refusal import Refusal
from prunus.serve.site.request_reading import Receive, Scope, Send, headers_of, read_body, timeout_of, whole_header
from prunus.serve.site.site_state import Site
from prunus.serve.watch.json_logs import say
from prunus.serve.wire.infer_request import parse_infer
from prunus.serve.wire.infer_response import Headers, infer_response

__all__ = ["Front"]

_MODELS = "/v2/models/"


class Front:
    """What uvicorn calls for every request.

    Args:
        pages: the application that answers what is no inference.
    """

    def __init__(self, site: Site, pages: Any) -> None:
        self._site, self._pages = site, pages
        self._plain = f"{_MODELS}{site.traffic.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        began, route = perf_counter(), "other"
        status = 500
        try:
            path: str = scope["path"]
            headers = headers_of(scope["headers"])
            caller = self._site.admission.admit(path, headers, (scope["client"] or ("",))[0])
            wanted = (self._site.traffic.name, None) if path == self._plain else _infer_path(path)
            if wanted is not None and scope["method"] == "POST":
                route = "infer"
                head, body = await self._infer(wanted[0], wanted[1], headers, receive)
                status = 200
                await _send(send, 200, [*head, *self._closing()], body)
                return
            route = "pages"
            status = await self._page(scope, headers, caller, receive, send)
        except Refusal as refusal:
            status = refusal.status
            await _refuse(send, refusal)
        except Exception as error:
            raise_if_out_of_memory(error)
            say("a request failed", level=logging.ERROR, error=one_line(error), path=scope["path"][:200])
            await _refuse(send, Refusal(500, "the server failed on this request; its log says why"))
        finally:
            took = perf_counter() - began
            self._site.metrics.answered(route, status, took)
            if self._site.settings.log_requests or status >= 500:
                facts = {"path": scope["path"][:200], "status": status, "ms": round(took * 1000, 3)}
                say("request", level=logging.ERROR if status >= 500 else logging.INFO, **facts)

    async def _infer(
        self, name: str, version: str | None, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[Headers, bytes]:
        site = self._site
        limits = site.settings.limits
        began = perf_counter()
        model = site.traffic.model(name, version)
        timeout_s = timeout_of(headers, limits)
        with site.traces.request(headers, name) as span:
            body = await read_body(site, headers, receive)
            try:
                with site.traces.part("read"):
                    json_bytes = whole_header(headers, b"inference-header-content-length", len(body))
                    asked = parse_infer(body, json_bytes, model.spec, limits)
                request_id = asked.id or secrets.token_hex(8)
                if asked.timeout_s is not None:
                    timeout_s = min(timeout_s, asked.timeout_s)
                left = max(timeout_s - (perf_counter() - began), 0.0)
                with site.traces.part("answer"):
                    answered, arrays = await site.traffic.answer(
                        model, version is not None, asked.arrays, asked.n_bytes, left, request_id
                    )
            finally:
                site.held_bytes -= len(body)
            if span is not None:
                span.set_attributes({"prunus.version": answered.spec.version, "prunus.examples": asked.n_examples})
            return infer_response(asked, answered.spec, arrays, request_id)

    async def _page(
        self, scope: Scope, headers: dict[bytes, bytes], caller: object, receive: Receive, send: Send
    ) -> int:
        """Let the pages answer, whose body is read within the limits before they see it; return the status."""
        body = await read_body(self._site, headers, receive)
        status = 500

        async def given() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def sent(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._closing()]
            await send(message)

        try:
            await self._pages({**scope, "state": {**scope.get("state", {}), "caller": caller}}, given, sent)
        finally:
            self._site.held_bytes -= len(body)
        return status

    def _closing(self) -> Headers:
        """Tell clients of a server that ends to come over another connection next time."""
        return [(b"connection", b"close")] if self._site.ends else []


def _infer_path(path: str) -> tuple[str, str | None] | None:
    """Return the model and the version that an inference's path names; None where it is no such path."""
    if not path.startswith(_MODELS) or not path.endswith("/infer"):
        return None
    parts = path[len(_MODELS) : -len("/infer")].split("/")
    if len(parts) == 1:
        return parts[0], None
    return (parts[0], parts[2]) if len(parts) == 3 and parts[1] == "versions" else None


async def _refuse(send: Send, refusal: Refusal) -> None:
    await _send(send, refusal.status, refusal.headers(), refusal.body())


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
