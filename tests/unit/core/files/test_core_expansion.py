"""What a file may become follows what it holds, and the user may raise it."""

import pytest

from prunus.core.errors import DataError
from prunus.core.files.expansion import SMALL_BYTES, TIMES, VARIABLE, check_expansion


def test_what_is_small_or_proportional_is_allowed():
    check_expansion("a", SMALL_BYTES, 1, DataError)
    check_expansion("a", TIMES * 10**9, 10**9, DataError)
    with pytest.raises(DataError, match=rf"a: refused, it would become {SMALL_BYTES + 1} bytes"):
        check_expansion("a", SMALL_BYTES + 1, 1, DataError)
    with pytest.raises(DataError, match="refused"):
        check_expansion("a", TIMES * 10**9 + 1, 10**9, DataError)


def test_what_the_message_advises_works(monkeypatch):
    with pytest.raises(DataError) as caught:
        check_expansion("a", 10**12, 999, DataError)
    advised = str(caught.value).partition(f"{VARIABLE}=")[2].split()[0]
    monkeypatch.setenv(VARIABLE, advised)
    check_expansion("a", 10**12, 999, DataError)
    monkeypatch.setenv(VARIABLE, str(int(advised) - 1))
    with pytest.raises(DataError, match="refused"):
        check_expansion("a", 10**12, 999, DataError)


@pytest.mark.parametrize("text", ["many", "-1", "1e9", "٣", "9" * 5000])
def test_what_is_no_number_is_said(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(DataError, match="must be a whole number"):
        check_expansion("a", 1, 1, DataError)
