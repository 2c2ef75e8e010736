"""How does a database's URL stand in what is written and said, without the password in it?

A recipe may hold one; what is kept of the recipe doesn't. So whoever goes on with the work gives it again: in the recipe, in the
environment variable ``PRUNUS_STORAGE_PASSWORD``, or as the database's own client takes it (``PGPASSWORD``, ``~/.pgpass``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from prunus.core.errors import RecipeError
from prunus.core.text import plain

__all__ = ["PASSWORD", "check_password", "hidden", "with_password", "without_password"]

PASSWORD = "PRUNUS_STORAGE_PASSWORD"  # noqa: S105 - its name
_USER = re.compile(r"(?P<start>[\w+.-]+://)(?P<user>[^:@/?]*)(?P<password>:[^?]*)?@")
# Up to the last @ before a query: who forgets to quote one in a password means it so.
_SECRET = re.compile(r"(?i)[?&](\w*(?:password|passwd|secret|token|passphrase)\w*)=([^&]*)")


def without_password(url: str) -> str:
    """Return the URL without a password: of its user, or in its query.

    >>> without_password("postgresql+psycopg://me:p@ss/word@db:5432/studies?sslmode=require&sslpassword=x")
    'postgresql+psycopg://me@db:5432/studies?sslmode=require'
    >>> without_password("sqlite:///study.db")
    'sqlite:///study.db'
    """
    found = _USER.match(url)
    if found is not None and found["password"] is not None:
        url = f"{found['start']}{found['user']}@{url[found.end() :]}"
    start, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if _SECRET.match(f"?{part}") is None]
    return f"{start}{mark}{'&'.join(kept)}" if any(kept) else start


def check_password(url: str, key: str) -> None:
    """Refuse a password of which a driver would take a part for the host's name, and ask the network for it.

    Raises:
        RecipeError: it holds an @ as it is.
    """
    found = _USER.match(url)
    if found is not None and "@" in (found["password"] or ""):
        raise RecipeError(
            f"{key}: {without_password(url)}: expected a password in which @ is written as %40, or none and "
            f"{PASSWORD}: got one with an @"
        )


def with_password(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL with the password that the environment has for it, where it names a user and no password.

    >>> with_password("mysql+pymysql://me@db/studies", {"PRUNUS_STORAGE_PASSWORD": "p@ss"})
    'mysql+pymysql://me:p%40ss@db/studies'
    """
    found, password = _USER.match(url), environment.get(PASSWORD)
    if found is None or not found["user"] or found["password"] is not None or not password:
        return url
    return f"{found['start']}{found['user']}:{quote(password, safe='')}@{url[found.end() :]}"


def hidden(text: str, url: str) -> str:
    """Return a text, on one line, without the passwords of the URL, however they are written in it.

    >>> hidden("can't log in to mysql://me:p%40ss@db as me with p@ss", "mysql://me:p%40ss@db")
    "can't log in to mysql://me@db as me with …"
    """
    found = _USER.match(url)
    secrets = [value for _, value in _SECRET.findall(url)]
    if found is not None and found["password"] is not None:
        secrets.append(found["password"][1:])
    text = text.replace(url, without_password(url))
    forms = {
        form for secret in secrets if secret for form in (secret, unquote(secret), quote(unquote(secret), safe=""))
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(f":{form}@", "@").replace(form, "…")
    return plain(" ".join(text.split()))
