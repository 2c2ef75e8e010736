"""What does it cost to sign and to verify a large bundle, beside ``model_signing`` itself, in turns in one run?

``python benchmarks/signing.py [--layers 16] [--repetitions 9]`` makes three bundles of layers of 4096 x 4096 (1.07 GB of
numbers) and prints a table: weights as they are, weights of which each tensor holds a zero (so a bundle compresses their
exponents), and half of the weights pruned. ``prunus sign`` verifies before it signs, and both commands of prunus also check the
header, that every number is finite, and types and shapes against the traced computation; ``model_signing`` hashes files. Files
lie in the page cache for both. Wall seconds are what a user waits; processor seconds don't depend on what else the machine does.
Ratios are within a repetition, so that load hits both alike, and each repetition starts with the other one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import model_signing
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from torch import nn

from prunus.ship import SignWith, VerifyPolicy, save_bundle, sign_bundle, verify_bundle

WIDTH = 4096


def keys(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "k.pem", folder / "k.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def shown(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def model_of(kind: str, n_layers: int) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(n_layers)))
    with torch.no_grad():
        for layer in model:
            if kind == "plain":
                layer.weight[layer.weight == 0] = 1e-9
            else:
                layer.weight[torch.rand(WIDTH, WIDTH) < (0.5 if kind == "half pruned" else 1e-6)] = 0
    return model


def measured(kind: str, n_layers: int, repetitions: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, (private, public) = Path(place) / "bundle", keys(Path(place))
        model = model_of(kind, n_layers)
        save_bundle(folder, model, built_by=None, dense=model, input_shape=(WIDTH,), n_outputs=WIDTH, task="regression")
        del model
        size = sum(path.stat().st_size for path in folder.iterdir())
        apart = Path(place) / "model.sig"
        ignored = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
        signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=private)
        signer.set_hashing_config(ignored)

        def peer_verifies() -> None:
            config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
            config.verify(folder, folder / "model.sig")

        work = {
            "sign": (lambda: sign_bundle(folder, SignWith(private)), lambda: signer.sign(folder, apart)),
            "verify": (lambda: verify_bundle(folder, policy=VerifyPolicy(public)), peer_verifies),
        }
        for own, peer in work.values():  # the first run brings the files into the page cache, and the imports
            own()
            peer()
        rows: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in work}
        for number in range(repetitions):
            for name, (own, peer) in work.items():
                first, second = (own, peer) if number % 2 == 0 else (peer, own)
                one, other = timed(first), timed(second)
                ours, theirs = (one, other) if number % 2 == 0 else (other, one)
                rows[name].append((*ours, *theirs))
    for name, found in rows.items():
        cells = [[row[0] for row in found], [row[2] for row in found], [row[0] / row[2] for row in found]]
        cells += [[row[1] for row in found], [row[3] for row in found], [row[1] / row[3] for row in found]]
        print(f"| {kind}, {size / 1e9:.2f} GB: {name} | {' | '.join(map(shown, cells))} |", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--layers", type=int, default=16)
    arguments.add_argument("--repetitions", type=int, default=9)
    given = arguments.parse_args()
    print(
        "| | prunus, wall s | model_signing, wall s | ratio | prunus, processor s | model_signing, processor s | ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind in ("plain", "with zeros", "half pruned"):
        measured(kind, given.layers, given.repetitions)
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{given.repetitions} repetitions in turns; median (least to most); {os.cpu_count()} cores, load {load}")


if __name__ == "__main__":
    main()
