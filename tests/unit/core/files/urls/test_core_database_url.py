"""Does no password of a database's URL come into what is kept or said, however it is written?"""

import pytest

from prunus.core.errors import RecipeError
from prunus.core.files.urls.database_url import check_password, hidden, with_password, without_password

URLS = [
    "postgresql+psycopg://me:hunter2@db/studies",
    "mysql+pymysql://me:hun%2Fter2@db:3306/studies?charset=utf8",
    "mysql://me:hun/ter2@db",
    "postgresql://me:h@nter2@db/studies?sslmode=require",
    "postgresql://db/studies?user=me&password=hunter2",
    "postgresql://me:hunter2@db/studies?sslpassword=unter2&sslmode=require",
]


@pytest.mark.parametrize("url", URLS)
def test_nothing_of_a_password_stays_in_the_url_or_in_what_is_said_of_it(url):
    kept, said = without_password(url), hidden(f"can't open {url}:\nh@nter2, hunter2, hun/ter2, hun%2Fter2", url)
    assert "nter2" not in kept.replace("hunter2.example", "")
    assert "\n" not in said
    secret = url.partition("://")[2].partition("@db")[0].partition(":")[2] or "hunter2"
    assert secret not in said
    assert without_password(kept) == kept
    assert "db" in kept


def test_a_url_without_a_password_is_kept_as_it_is():
    for url in (
        "sqlite:///study.db",
        "postgresql://me@db/x?sslmode=require",
        "nosuch://db",
        "mysql:///x?unix_socket=/a@b",
    ):
        assert without_password(url) == url


def test_the_environment_has_a_password_for_a_user_without_one_alone():
    given = {"PRUNUS_STORAGE_PASSWORD": "a/b@c"}
    assert with_password("mysql://me@db/x", given) == "mysql://me:a%2Fb%40c@db/x"
    for url in ("mysql://me:own@db/x", "mysql://db/x", "sqlite:///study.db"):
        assert with_password(url, given) == url
    assert with_password("mysql://me@db/x", {}) == "mysql://me@db/x"


def test_a_password_of_which_a_part_would_be_taken_for_a_host_is_refused_without_it():
    with pytest.raises(RecipeError, match=r"^search.storage: mysql://me@db/x: expected .* %40") as refused:
        check_password("mysql://me:hunter@2@db/x", "search.storage")
    assert "hunter" not in str(refused.value)
    check_password("mysql://me:hunter%402@db/x", "search.storage")
