"""Is what a database does wrong one line without its password, and no more than what it did?"""

from pathlib import Path

import pytest

from prunus.core.errors import MissingExtraError, OutputError, RunError
from prunus.core.recipes.recipe import Recipe
from prunus.search.study_storage import told
from recipe_samples import IRIS

URL = "postgresql+psycopg://me:hunter2@db/studies"


def test_a_recipe_that_is_written_or_shown_has_the_url_without_the_password():
    asked = {"space": {"strategy.keep_fraction": [0.5, 0.7]}, "storage": URL}
    recipe = Recipe.model_validate({**IRIS, "search": asked})
    assert recipe.search.storage == URL
    for text in (recipe.model_dump_json(), repr(recipe), str(recipe.model_dump())):
        assert "hunter2" not in text
    assert recipe.model_dump()["search"]["storage"] == "postgresql+psycopg://me@db/studies"
    assert recipe.model_copy(update={"output": "x"}).search.storage == URL


class StorageLostError(Exception):
    """As if it were SQLAlchemy's."""


StorageLostError.__module__ = "sqlalchemy.exc"


def test_what_is_wrong_is_told_by_the_database_s_own_words():
    lost = StorageLostError("(x) no\n[SQL: INSERT ...]")
    lost.orig = OSError("refused me:hunter2@db\nfor good")
    with pytest.raises(OutputError) as opening, told(URL):
        raise lost
    assert str(opening.value) == (
        "search.storage: can't open the study in postgresql+psycopg://me@db/studies: got StorageLostError: refused me@db for good"
    )
    assert opening.value.__cause__ is None
    assert opening.value.__suppress_context__
    with (
        pytest.raises(
            OutputError, match=r"studies was lost: got StorageLostError: .*; what is done is kept: go on with"
        ),
        told(URL, begun=True),
    ):
        raise lost


def test_what_is_not_the_database_s_passes():
    for error in (KeyError("x"), MemoryError(), KeyboardInterrupt(), RunError("x")):
        with pytest.raises(type(error)), told(URL, begun=True):
            raise error
    with pytest.raises(StorageLostError), told(None, begun=True):
        raise StorageLostError
    with (
        pytest.raises(OutputError, match=r"open the study in a/study.journal: got ValueError: damaged"),
        told(None, journal=Path("a/study.journal")),
    ):
        raise ValueError("damaged")


def test_a_driver_that_is_absent_is_named_with_how_to_get_it():
    with pytest.raises(MissingExtraError) as missing, told(URL):
        try:
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        except ModuleNotFoundError as error:
            raise ImportError("Failed to import DB access module") from error
    assert str(missing.value) == (
        "search.storage: postgresql+psycopg://me@db/studies needs the package 'psycopg', which is not installed: "
        "pip install 'psycopg[binary]'"
    )


def test_a_refused_password_is_told_with_where_it_is_given():
    with pytest.raises(OutputError, match=r"; give the password in the URL, or in PRUNUS_STORAGE_PASSWORD$"), told(URL):
        raise OSError('password authentication failed for user "me"')
