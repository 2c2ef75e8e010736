"""Do Google's and Azure's stores hold what S3's holds? Each against a server of its protocol on the loopback.

The servers are emulators that others wrote: ``gcp-storage-emulator`` (PyPI) for ``gs://``, ``azurite`` (npm) for ``az://``; one
that isn't installed is told and left out. The same files are scored and searched for near-duplicates on the disk and at URLs, and
compared to the byte; what isn't there and what may not be read is asked for, too.

    pip install gcsfs adlfs gcp-storage-emulator && npm install azurite
    python benchmarks/clouds.py --azurite node_modules/.bin/azurite-blob
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

AZURE_NAME = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the emulator, the same for everybody: its documentation names it."""
BUCKET = "prunus"


class Sums:
    """Scores a row by the sum of its numbers."""

    columns = ("a", "b")

    def __call__(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Return the scores."""
        return {"sum": batch.column("a").to_numpy() + batch.column("b").to_numpy()}


def main() -> None:
    """Print a table for each store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--azurite", default="azurite-blob", help="the command that npm installed")
    asked = parser.parse_args()
    stores: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
        "gs": google,
        "az": lambda: azure(asked.azurite),
    }
    failed = False
    for name, opened in stores.items():
        try:
            with opened() as url, tempfile.TemporaryDirectory() as folder:
                for what, outcome in checked(url, Path(folder)):
                    failed |= outcome.startswith("NO")
                    print(f"| {name} | {what} | {outcome} |", flush=True)
        except FileNotFoundError as error:
            print(f"| {name} | | left out: {error} |")
    sys.exit(failed)


@contextlib.contextmanager
def google() -> Iterator[str]:
    """Yield where a bucket is, with the environment by which it is found."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gcp_storage_emulator",
        "start",
        "--host=127.0.0.1",
        f"--port={port}",
        "--in-memory",
    ]
    told = {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "FSSPEC_GS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks over gRPC, which the emulator doesn't speak
    }
    with served([*command, f"--default-bucket={BUCKET}"], port, told):
        yield f"gs://{BUCKET}"


@contextlib.contextmanager
def azure(command: str) -> Iterator[str]:
    """Yield where a container is, with the environment by which it is found."""
    port = free_port()
    where = f"http://127.0.0.1:{port}/{AZURE_NAME}"
    said = f"DefaultEndpointsProtocol=http;AccountName={AZURE_NAME};AccountKey={AZURE_KEY};BlobEndpoint={where};"
    line = [command, "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"]
    with served([*line, "--blobPort", str(port)], port, {"AZURE_STORAGE_CONNECTION_STRING": said}):
        import fsspec

        fsspec.filesystem("az").mkdir(BUCKET)
        yield f"az://{BUCKET}"


@contextlib.contextmanager
def served(command: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    """Run a server for the block, once it answers."""
    os.environ.update(environment)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 120
            while True:
                with contextlib.closing(socket.socket()) as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if server.poll() is not None or time.monotonic() > until:
                    raise FileNotFoundError(f"{command[0]} doesn't start")
                time.sleep(0.1)
            yield
        finally:
            server.terminate()
            for name in environment:
                del os.environ[name]


def free_port() -> int:
    """Return a port of the loopback that nobody has."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as found:
        port: int = found.getsockname()[1]
        return port


def checked(url: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what was looked at, and what came of it."""
    from prunus.core.errors import PrunusError
    from prunus.core.files.urls import store
    from prunus.core.files.urls.copies import fetch_folder, send_folder
    from prunus.core.files.urls.url_path import path_at
    from prunus.scale import near_duplicates_shards, score_shards

    (folder / "in").mkdir()
    draw = np.random.default_rng(0)
    for number in range(3):
        rows = draw.random((4000, 6), np.float32)
        rows[-400:] = rows[:400]
        columns = {name: rows[:, place].astype(np.float64) for place, name in enumerate("abcdef")}
        pq.write_table(pa.table(columns), folder / "in" / f"part-{number}.parquet", row_group_size=1000)
    sent = send_folder(folder / "in", f"{url}/in", last=())
    yield "a folder is sent", "yes" if sent == 3 == len(store.tree(f"{url}/in")) else "NO"
    fetch_folder(f"{url}/in", folder / "back")
    yield "and fetched, to the byte", same(folder / "in", folder / "back")
    one = path_at(f"{url}/in/part-1.parquet")
    whole = (folder / "in" / "part-1.parquet").read_bytes()
    with one.open("rb") as file:
        file.seek(1000)
        yield "a range of an object", "yes" if file.read(5000) == whole[1000:6000] else "NO"
    versions = []
    for number in (1, 0, 1):
        store.upload(folder / "in" / f"part-{number}.parquet", str(one))
        facts = store.facts_of(str(one))
        versions.append("" if facts is None else facts.version)
    changed = all(versions) and versions[0] != versions[1] != versions[2]
    yield "other content has another version", "yes" if changed else f"NO ({versions})"

    def opens() -> Sums:
        return Sums()

    score_shards([folder / "in"], folder / "scores", opens, settings={})
    score_shards([path_at(f"{url}/in")], path_at(f"{url}/scores"), opens, settings={})
    fetch_folder(f"{url}/scores", folder / "scores-back")
    yield "scores of shards, to the byte", same(folder / "scores", folder / "scores-back")
    again = score_shards([path_at(f"{url}/in")], path_at(f"{url}/scores"), opens, settings={}, resume=True)
    yield "a resume finds all of them done", "yes" if again.shards_resumed == 3 else f"NO ({again})"
    near = {"cosine": 0.999, "columns": list("abcdef")}
    near_duplicates_shards([folder / "in"], folder / "near", **near)
    near_duplicates_shards([f"{url}/in"], f"{url}/near", **near)
    fetch_folder(f"{url}/near", folder / "near-back")
    yield "near-duplicates, to the byte", same(folder / "near", folder / "near-back")
    store.delete(f"{url}/in/part-2.parquet")
    yield "what is deleted is gone", "yes" if store.facts_of(f"{url}/in/part-2.parquet") is None else "NO"
    for what, place in (("no such object", f"{url}/in/none.parquet"), ("no such bucket", f"{url}-none/in/a.parquet")):
        try:
            path_at(place).read_bytes()
        except PrunusError as error:
            yield what, f"exit code {error.exit_code}: {error}"
        else:
            yield what, "NO"


def same(one: Path, other: Path) -> str:
    """Return whether the tables of two folders are the same bytes."""
    held = [{path.name: path.read_bytes() for path in folder.glob("*.parquet")} for folder in (one, other)]
    return "yes" if held[0] and held[0] == held[1] else "NO"


if __name__ == "__main__":
    main()
