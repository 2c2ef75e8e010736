"""Which URLs may stand where a path may, and how is one shown without what is secret in it?

A URL says where something lies, and nothing else: no keys, no query, no chain of protocols. With which keys, and at which endpoint,
is said by the environment, so that a recipe that somebody else wrote can name an object, and not whose keys go where.
"""

from __future__ import annotations

import os
import re

from prunus.core.errors import RecipeError, near
from prunus.core.text import plain

__all__ = ["EXTRAS", "VARIABLE", "checked_url", "is_url_text", "protocol_of", "scrubbed"]

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""The protocols that are allowed, and the extra that each needs."""

VARIABLE = "PRUNUS_URL_PROTOCOLS"
"""The environment variable in which a user allows others, by commas."""

_NEVER = frozenset(
    (
        *("blockcache", "cached", "dask", "data", "dir", "file", "filecache", "filesystem", "git", "github", "jupyter"),
        *("libarchive", "local", "python", "reference", "root", "simplecache", "tar", "zip"),
    )
)
"""They read this machine, unpack, or keep copies on it: a local path says that better."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@]*@"), "…@"),
    (re.compile(r"(?<=[^\s?])\?[^\s'\"]*"), "?…"),
    (re.compile(r"(?i)\b(\w*(?:secret|token|signature|password|access_?key(?:_?id)?|sig)\w*\s*[=:]\s*)\S+"), r"\1…"),
)


def is_url_text(text: str) -> bool:
    """Return whether a text is meant as a URL, whatever is wrong with it.

    >>> is_url_text("s3://bucket/a.csv"), is_url_text("sklearn:digits"), is_url_text("my.data:make")
    (True, False, False)
    """
    return "://" in text


def protocol_of(url: str) -> str:
    """Return the protocol of a URL, in lower case."""
    return url.partition("://")[0].lower()


def scrubbed(text: str) -> str:
    """Return a text without what may be secret in the URLs in it: users and passwords, queries, keys.

    >>> scrubbed("can't read https://me:pw@host/a?X-Amz-Signature=12 now")
    "can't read https://…@host/a?… now"
    """
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return plain(text)


def checked_url(text: str) -> str:
    """Return a URL that may be read and written, without a slash at its end.

    Raises:
        RecipeError: it may not; the message holds nothing that is secret.

    >>> checked_url("s3://bucket/folder/")
    's3://bucket/folder'
    """
    shown = scrubbed(text)
    if "::" in text:
        raise RecipeError(f"{shown}: expected one URL, got a chain of them (::), which prunus doesn't follow")
    found = _SCHEME.match(text)
    if found is None:
        raise RecipeError(f"{shown}: expected a URL like s3://bucket/folder/data.parquet")
    protocol, rest = found[1].lower(), text[found.end() :]
    _check_protocol(protocol, shown)
    if not text.isprintable() or "\\" in text:
        raise RecipeError(f"{shown}: a URL holds no control characters and no backslash")
    if "?" in rest or "#" in rest:
        raise RecipeError(
            f"{shown}: a URL says where something lies and no more: expected none of ? and #; keys belong into the environment"
        )
    first, *parts = rest.rstrip("/").split("/")
    user = first.rpartition("@")[0]
    if user and (not protocol.startswith("abfs") or ":" in user):  # abfs://container@account is how Azure names a place
        raise RecipeError(
            f"{shown}: a URL stands in recipes and records: expected no user or key in it; {_keys(protocol)}"
        )
    if not first or ":" in first:
        raise RecipeError(f"{shown}: expected a bucket behind {protocol}://, got {scrubbed(first) or 'nothing'!r}")
    if odd := [part for part in parts if part in ("", ".", "..")]:
        raise RecipeError(f"{shown}: expected names between the slashes, got {odd[0]!r}")
    return f"{protocol}://{'/'.join((first, *parts))}"


def _check_protocol(protocol: str, shown: str) -> None:
    if protocol in _NEVER:
        raise RecipeError(f"{shown}: {protocol}:// is never read as a URL: give the path of a file or folder")
    asked = {name.strip().lower() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    if protocol not in EXTRAS.keys() | asked:
        raise RecipeError(
            f"{shown}: {protocol}:// isn't allowed: {near(protocol, EXTRAS)}; {VARIABLE}={protocol} allows it to you"
        )


def _keys(protocol: str) -> str:
    names = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gcs": "GOOGLE_APPLICATION_CREDENTIALS"}
    return f"keys belong into the environment ({names.get(EXTRAS.get(protocol, ''), 'as its library reads them')})"
