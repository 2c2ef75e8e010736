"""Where is a study's account kept, in a journal or in a database, and what is said where a database can't be had?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require
from prunus.core.errors import MissingExtraError, OutputError, PrunusError, raise_if_out_of_memory
from prunus.core.files.urls.database_url import PASSWORD, check_password, hidden, with_password, without_password

__all__ = ["JOURNAL", "open_account", "told"]

JOURNAL = "study.journal"
_SECONDS_TO_ANSWER = 10
_TIMED = ("psycopg", "psycopg2", "pymysql", "mysqldb")
"""Drivers whose connections take a ``connect_timeout``."""
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "pymysql": "PyMySQL",
    "MySQLdb": "mysqlclient",
    "mariadb": "mariadb",
    "sqlalchemy": "prunus[search]",
}


def open_account(folder: Path, url: str | None) -> Any:
    """Return Optuna's storage: the database at ``url``, or a journal in the folder.

    Raises:
        RecipeError: the password in the URL isn't written as one.
        MissingExtraError: Optuna or the database's driver isn't installed.
        OutputError: the database can't be opened.
    """
    storages = require("optuna.storages", extra="search")
    if url is None:
        journal = require("optuna.storages.journal", extra="search")
        # The search holds its folder: a lock that lies here is of a process that was killed, and Optuna would wait for it, for ever
        # where the path is a relative one.
        (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)
        return storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))
    check_password(url, "search.storage")
    whole = with_password(url)
    options: dict[str, Any] = {
        "pool_pre_ping": True
    }  # a search may take days, and the database be started anew meanwhile
    if url.partition("://")[0].partition("+")[2] in _TIMED:
        options["connect_args"] = {"connect_timeout": _SECONDS_TO_ANSWER}
    with told(url):
        return storages.RDBStorage(whole, engine_kwargs=options)


@contextmanager
def told(url: str | None, *, journal: Path | None = None, begun: bool = False) -> Iterator[None]:
    """Say in one line, and without a password, what a database, or else the journal, does wrong inside the block.

    Args:
        begun: the study was opened before, and what isn't the database's is another's to tell.

    Raises:
        MissingExtraError: its driver isn't installed.
        OutputError: it can't be opened, or is lost.
    """
    try:
        yield
    except PrunusError:
        raise
    except Exception as error:
        raise_if_out_of_memory(error)
        if begun and (url is None or type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna")):
            raise
        where, absent = str(journal) if url is None else without_password(url), _absent(error)
        if url is None:
            url = where
        if absent is not None:
            raise MissingExtraError(
                f"search.storage: {where} needs the package {absent!r}, which is not installed: "
                f"pip install '{_PACKAGES.get(absent, absent)}'"
            ) from None
        said = hidden(f"{type(error).__name__}: {_cause(error)}", with_password(url))
        if begun:
            text = f"the database {where} was lost: got {said}; what is done is kept: go on with --resume"
        else:
            text = f"can't open the study in {where}: got {said}{_hint(url, said)}"
        # What was raised before may hold the URL as it is.
        raise OutputError(f"search.storage: {text}") from None


def _absent(error: BaseException) -> str | None:
    """Return the driver that isn't installed, if that is what is wrong."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ModuleNotFoundError) and found.name:
            return found.name.partition(".")[0]
        found = found.__cause__ or found.__context__
    return None


def _cause(error: BaseException) -> str:
    """Return what the database itself said, without the statement that it was asked."""
    found: BaseException = error
    while (before := getattr(found, "orig", None) or found.__cause__) is not None:
        found = before
    return str(found.args[-1] if len(found.args) > 1 and isinstance(found.args[0], int) else found)


def _hint(url: str, said: str) -> str:
    refused = any(word in said.lower() for word in ("password", "access denied"))
    return f"; give the password in the URL, or in {PASSWORD}" if refused and "://" in url else ""
