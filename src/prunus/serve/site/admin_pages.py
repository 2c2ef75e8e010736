"""Which pages change or judge what is served: load, promote, roll back, labels of what was answered?

Changing needs the key of an admin. What is asked is a small JSON object; every word of it is checked, and others are refused. This
file needs FastAPI, and is imported where that is known to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request

from prunus.core.text import shown
from prunus.serve.refusal import Refusal
from prunus.serve.site.site_state import Site
from prunus.serve.watch.json_logs import say
from prunus.serve.wire.json_body import parse_body

__all__ = ["add_admin_pages"]


def add_admin_pages(app: FastAPI, site: Site) -> None:
    """Add the pages to an application."""
    traffic, replacement = site.traffic, site.replacement

    def admin(request: Request) -> str:
        site.admission.admin(request.state.caller)
        return str(request.state.caller.name)

    @app.post("/v2/repository/index", tags=["repository"])
    async def index() -> Any:
        """List what is served."""
        return [
            {"name": traffic.name, "version": model.spec.version, "state": "READY", "reason": ""}
            for model in traffic.models
        ]

    @app.post("/v2/repository/models/{name}/load", tags=["repository"])
    async def load(request: Request, name: str) -> Any:
        """Load a bundle in place of the served one; the parameters are `bundle`, a name in --bundles, and `force`."""
        by = admin(request)
        traffic.model(name, None)
        given = await _words(request, {"parameters": dict})
        parameters = _checked(given.get("parameters") or {}, {"bundle": str, "force": bool}, "parameters.")
        made = await replacement.load(parameters.get("bundle"), force=parameters.get("force", False))
        say("load", by=by, **made)
        return made

    @app.get("/comparison", tags=["canary"])
    async def comparison() -> Any:
        """Return what is known by now of the pruned model beside the dense one."""
        if traffic.comparison is None:
            raise Refusal(409, "there is one model here: start with --dense to compare")
        versions = {"dense": traffic.first.spec.version, "pruned": traffic.pruned and traffic.pruned.spec.version}
        return {"stage": traffic.stage, "versions": versions, **traffic.comparison.report()}

    @app.post("/promote", tags=["canary"])
    async def promote(request: Request) -> Any:
        """Let the pruned model answer everything; with `force` also where it isn't shown to be no worse."""
        by = admin(request)
        force = (await _words(request, {"force": bool})).get("force", False)
        if traffic.comparison is None or traffic.pruned is None:
            raise Refusal(409, "there is one model here, and it answers everything already")
        verdict = traffic.comparison.verdict
        if verdict != "no worse" and not force:
            known = "it is shown to be worse" if verdict == "worse" else "it isn't shown yet that it is no worse"
            raise Refusal(409, f"not promoted: {known} than the dense one; /comparison says what is known")
        traffic.turn("promoted", f"asked for by {by}")
        return {"stage": traffic.stage, "version": traffic.primary.spec.version}

    @app.post("/rollback", tags=["canary"])
    async def rollback(request: Request) -> Any:
        """Let the dense model answer everything; where there is one model, the one that was replaced last."""
        by = admin(request)
        await _words(request, {})
        if traffic.pruned is None:
            model = replacement.back()
            say("rolled back", by=by, version=model.spec.version)
        else:
            traffic.turn("rolled back", f"asked for by {by}")
        return {"stage": traffic.stage, "version": traffic.primary.spec.version}

    @app.post("/feedback", tags=["canary"])
    async def feedback(request: Request) -> Any:
        """Take the labels of a request that was answered lately: its `id`, and one of `labels` for each example."""
        given = await _words(request, {"id": str, "labels": object})
        for word in ("id", "labels"):
            if word not in given:
                raise Refusal(400, f"{word}: expected the request's id and its labels, got no {word}", field=word)
        return {"id": given["id"], "compared": traffic.feedback(given["id"], given["labels"])}


async def _words(request: Any, known: Mapping[str, type]) -> dict[str, Any]:
    body: bytes = await request.body()
    return _checked(parse_body(body) if body else {}, known, "")


def _checked(given: dict[str, Any], known: Mapping[str, type], where: str) -> dict[str, Any]:
    for word, value in given.items():
        if word not in known:
            words = ", ".join(known) or "nothing"
            raise Refusal(400, f"{where}{word[:60]}: expected {words}", field=f"{where}{word}"[:100])
        if not isinstance(value, known[word]):
            field = f"{where}{word}"
            raise Refusal(400, f"{field}: expected {known[word].__name__}, got {shown(value)}", field=field)
    return given
