"""How does a server start, say where it is, and end without losing a request?

The port is taken before a model is loaded, so that one in use is said at once. On SIGTERM the server says that it isn't ready, goes
on for ``drain_s`` while whoever sends requests looks elsewhere, answers what came, and leaves.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import signal
import socket
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from prunus.core.code.extras import require
from prunus.core.errors import OutputError, RecipeError
from prunus.serve.gate.admission import Admission
from prunus.serve.gate.api_keys import ApiKeys
from prunus.serve.running.served_model import Loaded, ServedModel, load_served
from prunus.serve.serve_settings import ServeSettings
from prunus.serve.site.hot_path import Front
from prunus.serve.site.pages import pages
from prunus.serve.site.serve_metrics import ServeMetrics
from prunus.serve.site.site_state import InFlight, Site
from prunus.serve.site.text_tokens import Tokenizer
from prunus.serve.traffic.model_traffic import Pair, Stage, Traffic
from prunus.serve.traffic.replacement import Replacement
from prunus.serve.watch.json_logs import log_to, say
from prunus.serve.watch.traces import NO_TRACES, Traces

__all__ = ["application", "called", "listening_socket", "new_site", "serve", "uvicorn_server"]

_BACKLOG = 2048
"""Connections that wait to be taken; where there are too many of them, they are told so."""


def serve(
    bundle: Path,
    settings: ServeSettings,
    *,
    dense: Path | None = None,
    pair: Pair | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a bundle until the process is told to end.

    Args:
        dense: the bundle of the dense model that ``bundle`` is compared with, as ``pair`` says.
        tell: is told where the server is, once it answers.

    Raises:
        RecipeError: keys, certificate or settings can't be used.
        BundleError: the bundle isn't what it says.
        OutputError: the port is in use.
        MissingExtraError: a package isn't installed.
    """
    for module in ("fastapi", "uvicorn", "httptools", "prometheus_client", "orjson", "onnxruntime"):
        require(module, extra="serve")
    admission = Admission(settings, ApiKeys.read(settings.keys))
    _check_certificate(settings)
    log_to()
    with listening_socket(settings) as listening:
        name = settings.name or called(bundle)
        folders = [bundle] if dense is None else [dense, bundle]
        loaded = [load_served(folder, name, settings, lambda text: say("loading", note=text)) for folder in folders]
        if dense is not None:
            _check_pair(*loaded)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_served(loaded, pair, settings, admission, listening, tell))


def called(bundle: Path) -> str:
    """Return what clients call the model of a bundle: its folder's name, that of its run where it is ``bundle``.

    >>> called(Path("runs/digits/bundle")), called(Path("models/my model"))
    ('digits', 'my-model')
    """
    folder = bundle.resolve()
    name = folder.parent.name if folder.name == "bundle" else folder.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def new_site(
    loaded: Loaded,
    settings: ServeSettings,
    admission: Admission,
    pruned: Loaded | None = None,
    pair: Pair | None = None,
) -> Site:
    """Return the state of a server of one model, or of a dense one and a pruned one; in the thread of the event loop."""
    metrics, in_flight = ServeMetrics(), InFlight()

    def made(new: Loaded) -> ServedModel:
        return ServedModel(new, settings.limits, lambda ran: metrics.ran(new.spec.version, ran), in_flight)

    def gone(model: ServedModel) -> None:
        if model.spec.version not in [one.spec.version for one in traffic.models]:
            metrics.forget(model.spec.version)

    def changed(stage: Stage, why: str) -> None:
        say("stage", stage=stage, why=why, answers=traffic.primary.spec.version)

    beside = None if pruned is None else made(pruned)
    traffic = Traffic(loaded.spec.name, made(loaded), beside, pair, changed)
    tokenizer = None if settings.tokenizer is None else Tokenizer(settings.tokenizer)
    traces = Traces.exported(loaded.spec.name) if settings.traces else NO_TRACES
    replacement = Replacement(traffic, settings, made, gone)
    return Site(settings, admission, traffic, replacement, metrics, tokenizer, traces, in_flight)


def application(site: Site) -> Front:
    """Return the ASGI application of a site."""
    return Front(site, pages(site))


def _check_pair(dense: Loaded, pruned: Loaded) -> None:
    """Raise unless two models can stand for each other."""
    ours, theirs = dense.spec, pruned.spec
    for what in ("inputs", "outputs"):
        shapes = [[one.describe() for one in getattr(spec, what)] for spec in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise RecipeError(f"--dense must have the {what} of the pruned model: got {shapes[0]} and {shapes[1]}")
    if (ours.task, ours.class_names) != (theirs.task, theirs.class_names):
        raise RecipeError("--dense must have the task and the classes of the pruned model: got others")
    if ours.version == theirs.version:
        raise RecipeError("--dense is the same bundle as the pruned one: there is nothing to compare")


async def _served(
    loaded: list[Loaded],
    pair: Pair | None,
    settings: ServeSettings,
    admission: Admission,
    listening: socket.socket,
    tell: Callable[[str], None],
) -> None:
    site = new_site(loaded[0], settings, admission, loaded[1] if pair else None, pair)
    host, port = listening.getsockname()[:2]
    scheme = "http" if settings.certificate is None else "https"
    where = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def begun() -> None:
        spec = loaded[0].spec
        versions = [one.spec.version for one in loaded]
        say("serving", model=spec.name, versions=versions, platform=spec.platform, stage=site.traffic.stage, at=where)
        tell(where)

    # A million objects of the libraries live as long as the server: to look through them for garbage would stop it again and again.
    gc.collect()
    gc.freeze()
    try:
        await uvicorn_server(site, application(site), begun).serve(sockets=[listening])
        await site.traffic.drained()
        await site.replacement.drained()
    finally:
        gc.unfreeze()
    site.traces.end()
    say("ended")


def uvicorn_server(site: Site, app: Any, begun: Callable[[], None] = lambda: None) -> Any:
    """Return uvicorn's server, with the strict protocol and an end that doesn't hurry.

    Args:
        begun: is called once it answers, and can be told to end.
    """
    import uvicorn

    from prunus.serve.wire.strict_http import strict_protocol

    settings, limits = site.settings, site.settings.limits
    config = uvicorn.Config(
        app,
        http=strict_protocol(limits),
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
        log_config=None,
        backlog=_BACKLOG,
        timeout_keep_alive=int(max(limits.idle_s, 1)),
        timeout_graceful_shutdown=int(limits.deadline_s) + 1,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.certificate_key,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Begin to end; a second signal ends at once."""
            if site.ends or not settings.drain_s:
                site.ends = True
                super().handle_exit(sig, frame)
                return
            site.ends = True
            say("ending", signal=signal.Signals(sig).name, drain_s=settings.drain_s)
            timer = time.monotonic() + settings.drain_s
            self._drain_until = timer

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Begin to answer, and say so."""
            await super().startup(sockets=sockets)
            begun()

        async def on_tick(self, counter: int) -> bool:
            """Tell whether it is time to end."""
            until = getattr(self, "_drain_until", None)
            if until is not None and time.monotonic() >= until:
                self.should_exit = True
            return await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """End, and leave with the exit code 0: being told to is no failure."""
            site.ends = True
            await super().shutdown(sockets=sockets)
            self._captured_signals.clear()

    server = Server(config)
    site.in_flight.count = lambda: len(server.server_state.tasks)
    return server


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # on Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def listening_socket(settings: ServeSettings) -> socket.socket:
    """Return a socket that has the port.

    Raises:
        OutputError: the port is in use, or isn't ours to take.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise RecipeError(f"--host {host!r} is no address of this machine: {error.strerror or error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise OutputError(
                f"port {port} of {host} is in use by another program: end that one, or choose another (--port)"
            ) from error
        raise OutputError(f"can't listen on port {port} of {host}: {error.strerror}") from error
    return made


def _check_certificate(settings: ServeSettings) -> None:
    """Raise unless certificate and key fit each other, nobody else can read the key, and the certificate is valid now."""
    if settings.certificate is None or settings.certificate_key is None:
        return
    certificate, key = settings.certificate, settings.certificate_key
    try:
        mode = key.stat().st_mode
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise RecipeError(
            f"{certificate} and {key} are no certificate with its key (PEM): {error.reason or error}"
        ) from error
    except OSError as error:
        raise RecipeError(f"the certificate {certificate} or its key {key} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise RecipeError(
            f"others can read the key {key}: its mode is {stat.S_IMODE(mode):o}; chmod 600 it, and make a new one"
        )
    facts: dict[str, Any] = ssl._ssl._test_decode_cert(os.fspath(certificate))  # type: ignore[attr-defined]
    if ssl.cert_time_to_seconds(facts["notAfter"]) < time.time():
        raise RecipeError(f"the certificate {certificate} expired on {facts['notAfter']}: make a new one")


def _no_password() -> str:
    raise RecipeError(
        "the key of the certificate is encrypted, and nobody is asked for a password: give one that isn't"
    )
