"""What is asked of an object store, and what does it mean when it says no?

One connection for each protocol and process, opened at the first question: ``fsspec`` and what speaks the protocol are imported
then and not before. Every answer is fresh: no listing is remembered. What breaks on the way is tried again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, MissingExtraError, OutputError, PrunusError, RunError, raise_if_out_of_memory
from prunus.core.files.urls.url_text import EXTRAS, protocol_of, scrubbed

__all__ = [
    "Facts",
    "connection",
    "delete",
    "facts_of",
    "listing",
    "read_spans",
    "refused_as",
    "said_of",
    "tree",
    "tried",
    "upload",
]

T = TypeVar("T")
_PACKAGES = {"s3": "s3fs", "gcs": "gcsfs", "azure": "adlfs"}
_PAUSES_SECONDS = (0.2, 1.0)
"""How long is waited before it is tried again; what speaks the protocol has tried a few times itself by then."""
_NO_KEYS = (
    "NoCredentials",
    "PartialCredentials",
    "CredentialRetrieval",
    "TokenRetrieval",
    "NoAuthToken",
    "DefaultCredentials",
)
_HOW = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=1 for a public bucket",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "azure": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}
_connections: dict[tuple[int, str], Any] = {}


@dataclass(frozen=True)
class Facts:
    """What a store says of a name: an object or a folder; ``version`` changes whenever the object is written."""

    is_folder: bool
    size_bytes: int = 0
    version: str = ""


def connection(url: str) -> Any:
    """Return what speaks the protocol of a URL.

    Raises:
        MissingExtraError: its package isn't installed.
    """
    protocol = protocol_of(url)
    key = (os.getpid(), protocol)  # a connection doesn't outlive a fork
    if key not in _connections:
        fsspec = require("fsspec", extra=EXTRAS.get(protocol, "s3"))
        extra = EXTRAS.get(protocol)
        if extra is not None:
            require(_PACKAGES[extra], extra=extra)
        options: dict[str, Any] = {"use_listings_cache": False}
        if extra == "s3":
            options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
        try:
            _connections[key] = fsspec.filesystem(protocol, **options)
        except (ImportError, ValueError) as error:
            raise MissingExtraError(
                f"{protocol}:// needs a package that isn't installed ({one_line(error)[:200]})"
            ) from error
        except Exception as error:
            raise_if_out_of_memory(error)
            raise said_of(error, url, DataError) from error
    return _connections[key]


def tried(url: str, ask: Callable[[], T], error: type[PrunusError] = DataError) -> T:
    """Return what ``ask`` does, tried again where the connection broke.

    Raises:
        FileNotFoundError: there is nothing; what that means is for the caller to say.
        PrunusError: the store refuses, of the class ``error``.
        RunError: the connection broke, each time.
    """
    for pause in (*_PAUSES_SECONDS, None):
        try:
            return ask()
        except (PrunusError, FileNotFoundError):
            raise
        except Exception as failure:
            raise_if_out_of_memory(failure)
            meant = said_of(failure, url, error)
            if pause is None or not isinstance(meant, RunError):
                raise meant from failure
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


@contextmanager
def refused_as(kind: type[PrunusError]) -> Iterator[None]:
    """Raise what a store refuses within the block as what it means there: that an output can't be written, or a bundle be read.

    Raises:
        PrunusError: of the class ``kind``, where a ``DataError`` came.
    """
    try:
        yield
    except DataError as error:
        raise kind(str(error)) from error


def said_of(failure: BaseException, url: str, error: type[PrunusError]) -> PrunusError:
    """Return the error for what a store, or the way to it, answered about a URL."""
    extra, name = EXTRAS.get(protocol_of(url), ""), type(failure).__name__
    if isinstance(failure, PrunusError):
        return failure
    if any(word in name or word in str(failure) for word in _NO_KEYS) or "Unable to locate credentials" in str(failure):
        return error(f"{url}: no credentials were found; {_HOW.get(extra, 'set them in the environment')}")
    if name == "FileExpired":
        return error(f"{url}: it was changed while it was read; wait until it is whole, and start again")
    if isinstance(failure, PermissionError) or "403" in str(failure):
        said = scrubbed(one_line(failure))[:120]
        doing = "write" if issubclass(error, OutputError) else "read"
        return error(
            f"{url}: access denied, these credentials may not {doing} it ({said}); ask for the right to, or use others"
        )
    if isinstance(failure, FileNotFoundError):
        return error(f"{url}: {nothing_at(url)}")
    said = scrubbed(one_line(failure))[:200]
    return RunError(
        f"{url}: the connection to the store broke, {len(_PAUSES_SECONDS) + 1} times ({said}); try again later"
    )


def nothing_at(url: str) -> str:
    """Return what isn't there: the object, or even its bucket."""
    protocol, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    try:
        there = bool(connection(url).exists(f"{protocol}://{bucket}"))
    except Exception as failure:
        raise_if_out_of_memory(failure)
        there = True  # who may not ask for it learns that of the object
    return "there is no such object or folder" if there else f"there is no bucket {bucket!r}"


def facts_of(url: str) -> Facts | None:
    """Return what lies at a URL, None where nothing does.

    Raises:
        PrunusError: the store can't be asked.
    """
    store = connection(url)
    try:
        return _facts(tried(url, lambda: store.info(url)))
    except FileNotFoundError:
        return None


def listing(url: str) -> dict[str, Facts]:
    """Return what lies in a folder, by its name.

    Raises:
        DataError: there is no such folder.
    """
    store = connection(url)
    try:
        found = tried(url, lambda: store.ls(url, detail=True))
    except FileNotFoundError as error:
        raise DataError(f"{url}: {nothing_at(url)}") from error
    own = url.partition("://")[2].strip("/")
    names = {entry["name"].strip("/"): _facts(entry) for entry in found}
    return {
        name.rpartition("/")[2]: facts
        for name, facts in sorted(names.items())
        if name != own and not name.endswith((f"/{own}", "://" + own))
    }


def tree(url: str) -> dict[str, Facts]:
    """Return all objects below a URL, by what they are called from there; none where there is nothing."""
    store = connection(url)
    try:
        found = tried(url, lambda: store.find(url, detail=True))
    except FileNotFoundError:
        return {}
    own = str(store._strip_protocol(url)).strip("/")
    names = {name.strip("/"): _facts(entry) for name, entry in found.items()}
    return {name[len(own) + 1 :]: facts for name, facts in sorted(names.items()) if name.startswith(f"{own}/")}


def read_spans(url: str, spans: Iterable[tuple[int, int]]) -> list[bytes]:
    """Return some pieces of an object, asked for together.

    Raises:
        PrunusError: there is none, or it can't be read.
    """
    store, pairs = connection(url), list(spans)
    starts, ends = [start for start, _ in pairs], [end for _, end in pairs]

    def ask() -> list[bytes]:
        found = store.cat_ranges([url] * len(pairs), starts, ends, on_error="raise")
        if [len(piece) for piece in found] != [end - start for start, end in pairs]:
            raise ConnectionError("fewer bytes came than were asked for")
        return [bytes(piece) for piece in found]

    try:
        return tried(url, ask)
    except FileNotFoundError as error:
        raise DataError(f"{url}: {nothing_at(url)}") from error


def upload(file: Path, url: str) -> None:
    """Write a file to a URL: the object appears whole, or not at all.

    Raises:
        OutputError: it can't be written.
        RunError: the connection broke.
    """
    store = connection(url)
    with _written(url):
        tried(url, lambda: store.put_file(os.fspath(file), url), OutputError)


def delete(url: str) -> None:
    """Remove an object, if it is there.

    Raises:
        OutputError: it can't be removed.
    """
    store = connection(url)
    try:
        tried(url, lambda: store.rm_file(url), OutputError)
    except FileNotFoundError:
        return


@contextmanager
def _written(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise OutputError(f"{url}: it can't be written: {nothing_at(url)}") from error


def _facts(entry: dict[str, Any]) -> Facts:
    """Return what is said of an entry; stores call its version by different names."""
    names = (
        "ETag",
        "etag",
        "generation",
        "VersionId",
        "content_md5",
        "md5Hash",
        "LastModified",
        "last_modified",
        "created",
    )
    version = next((str(entry[name]) for name in names if entry.get(name)), "")
    return Facts(entry.get("type") == "directory", int(entry.get("size") or 0), version.strip('"'))
