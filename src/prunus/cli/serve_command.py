"""How is a bundle served from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.bundles.brought import brought_here
from prunus.cli.options import BundlePath, Size, Trust, on_this_machine

__all__ = ["serve"]


def serve(
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="where to listen; other than the loopback needs --keys")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free")] = 8000,
    size: Size = None,
    dense: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="the dense model, served together with the pruned one")
    ] = None,
    canary: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="so many requests are answered by the pruned model")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="the pruned model is asked beside, and answers nobody")
    ] = False,
    max_drop: Annotated[float, typer.Option(help="accuracy that may be lost, by labels that come as feedback")] = 0.01,
    max_disagreement: Annotated[float, typer.Option(help="share of examples that may be decided otherwise")] = 0.05,
    bundles: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="an admin may load the bundles in it by name")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="only bundles that were signed with its private half are served")
    ] = None,
    certificate_chain: Annotated[
        list[Path] | None, typer.Option(metavar="PEM", help="only bundles signed by a certificate that comes from it")
    ] = None,
    min_version: Annotated[
        str | None, typer.Option("--min-version", metavar="VERSION", help="the oldest signed version that is served")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a tokenizer.json, for lines of text at /v1/predict")
    ] = None,
    name: Annotated[str | None, typer.Option(help="what clients call the model; default: its folder")] = None,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="lines of NAME KEY or NAME KEY admin, chmod 600")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="most requests a second of one key")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a name that a server without keys may be called by")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="serve https with this")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="the certificate's key, chmod 600")] = None,
    runtime: Annotated[str, typer.Option(metavar="auto|onnxruntime|torch", help="what runs the model")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="of the runtime; default: all cores")] = None,
    batch: Annotated[int, typer.Option(min=1, help="most examples that run at once")] = 64,
    queue: Annotated[int, typer.Option(min=1, help="most requests that wait; others get 429")] = 1024,
    deadline: Annotated[float, typer.Option(help="most seconds for an answer; then 504")] = 30.0,
    max_body: Annotated[int, typer.Option(min=1, metavar="MB", help="largest request; others get 413")] = 16,
    drain: Annotated[float, typer.Option(help="seconds to go on after SIGTERM, not ready")] = 0.0,
    workers: Annotated[int, typer.Option(min=1, help="1: for more processes start several servers behind a proxy")] = 1,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="where exported models are kept", callback=on_this_machine)
    ] = None,
    traces: Annotated[
        bool, typer.Option("--traces", help="spans to OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT says")
    ] = False,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="a line of JSON for each request")] = False,
    trust_code: Trust = False,
) -> None:
    """Serve a bundle over HTTP by the Open Inference Protocol v2, with ONNX Runtime inside."""
    from prunus.core.recipes.named_places import check_bundle

    if (dense is None) != (canary is None and not shadow) or (canary is not None and shadow):
        raise typer.BadParameter("--dense goes with one of --canary PERCENT and --shadow")
    if workers > 1:
        raise typer.BadParameter(
            f"--workers is 1, got {workers}: processes behind one port would each count their own part of rates, labels, canary "
            "and metrics, and a promotion would reach one of them; the model uses all cores as it is (--threads), and for more "
            "start several servers on ports of their own behind a proxy (docs/how-to/serve.md)"
        )
    bundle, dense = brought_here(bundle, size), None if dense is None else brought_here(dense)
    for path in (bundle, *([] if dense is None else [dense])):
        check_bundle(path)
    from prunus.pipeline.shipping import bundle_folder
    from prunus.serve import ClientLimits, Pair, Promise, ServeSettings
    from prunus.serve import serve as run
    from prunus.ship.signing import VerifyPolicy

    pair = Pair(None if canary is None else canary / 100, Promise(max_drop, max_disagreement)) if dense else None
    signed = public_key is not None or certificate_chain or min_version is not None
    settings = ServeSettings(
        host=host,
        port=port,
        name=name,
        threads=threads,
        runtime=runtime,
        cache=cache,
        trust_code=trust_code,
        limits=ClientLimits(
            batch=batch,
            queued=queue,
            deadline_s=deadline,
            body_bytes=max_body << 20,
            held_bytes=max(max_body << 22, 2**28),
        ),
        keys=keys,
        rate=rate,
        allowed_hosts=tuple(allow_host or ()),
        certificate=tls_certificate,
        certificate_key=tls_key,
        bundles=bundles,
        policy=VerifyPolicy(public_key, tuple(certificate_chain or ()), min_version) if signed else None,
        tokenizer=tokenizer,
        traces=traces,
        drain_s=drain,
        log_requests=log_requests,
    )
    run(
        bundle_folder(bundle),
        settings,
        dense=None if dense is None else bundle_folder(dense),
        pair=pair,
        tell=lambda where: typer.echo(f"serving at {where} (what it takes: {where}/docs); Ctrl-C ends it"),
    )
