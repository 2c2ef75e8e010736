"""Who has no key doesn't come in, how long a comparison takes says nothing, and no one gets more than their share."""

from __future__ import annotations

import hashlib
import os

import pytest

from prunus.core.errors import RecipeError
from prunus.serve.gate import rate_limits
from prunus.serve.gate.admission import Admission
from prunus.serve.gate.api_keys import ApiKeys, Caller
from prunus.serve.gate.rate_limits import RateLimits
from prunus.serve.serve_settings import ServeSettings
from serve_stand_ins import ask, go, infer, served, small_bundle

__all__ = ["small_bundle"]

KEY, ADMIN = "k" * 20, "a" * 24


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\nshop {KEY}\n\nops {ADMIN} admin\n")
    path.chmod(0o600)
    return path


def test_keys_come_from_a_file_and_the_environment(keys):
    found = ApiKeys.read(keys, {"PRUNUS_API_KEYS": "web " + "w" * 16 + ", cron " + "c" * 16 + " admin"})
    assert found.caller(KEY) == Caller("shop")
    assert found.caller(ADMIN) == Caller("ops", admin=True)
    assert found.caller("w" * 16) == Caller("web")
    assert found.caller("c" * 16) == Caller("cron", admin=True)
    assert found.caller(KEY[:-1]) is None
    assert found.caller("") is None


def test_a_key_may_be_given_by_its_hash(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"shop sha256:{hashlib.sha256(KEY.encode()).hexdigest()}")
    path.chmod(0o600)
    assert ApiKeys.read(path, {}).caller(KEY) == Caller("shop")
    assert ApiKeys.read(path, {}).caller(path.read_text().split()[1]) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_file_that_others_can_read_is_refused(keys, mode):
    keys.chmod(mode)
    with pytest.raises(RecipeError, match="others can read the key file"):
        ApiKeys.read(keys, {})


@pytest.mark.parametrize(
    "line",
    ["shop", "shop short", f"shop {KEY} boss", f"sh/op {KEY}", f"a {KEY}\nb {KEY}", f"a {KEY}\na {ADMIN}", "# none"],
)
def test_a_line_that_is_no_key_is_named_and_no_key_is_shown(tmp_path, line):
    path = tmp_path / "keys"
    path.write_text(line)
    path.chmod(0o600)
    with pytest.raises(RecipeError) as caught:
        ApiKeys.read(path, {})
    assert KEY not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_link_is_no_key_file(keys, tmp_path):
    (tmp_path / "link").symlink_to(keys)
    with pytest.raises(RecipeError, match="plain file"):
        ApiKeys.read(tmp_path / "link", {})


def test_every_key_is_compared_each_time(monkeypatch, keys):
    seen = []
    monkeypatch.setattr("prunus.serve.gate.api_keys.hmac.compare_digest", lambda a, b: seen.append((a, b)) or a == b)
    found = ApiKeys.read(keys, {})
    for key in (KEY, ADMIN, "nobody's"):
        seen.clear()
        found.caller(key)
        assert [a for a, _ in seen] == list(found.callers)
        assert all(len(a) == len(b) == 32 for a, b in seen)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_a_server_that_others_reach_needs_keys(host, keys):
    with pytest.raises(RecipeError, match="needs API keys"):
        Admission(ServeSettings(host=host), ApiKeys({}))
    Admission(ServeSettings(host=host), ApiKeys.read(keys, {}))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": "Bearer é"}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer  {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
    ],
)
def test_without_a_known_key_nothing_is_answered_but_health(small_bundle, keys, headers, status):
    async def asked():
        _, app = served(small_bundle, keys=ApiKeys.read(keys, {}))
        found = [await ask(app, "POST", "/v2/models/small/infer", infer([[1.0] * 6]), headers)]
        found += [
            await ask(app, "GET", path, headers=headers)
            for path in ("/v2", "/metrics", "/openapi.json", "/v2/models/small")
        ]
        health = [await ask(app, "GET", f"/v2/health/{which}", headers=headers) for which in ("live", "ready")]
        return found, health

    found, health = go(asked())
    assert {answer.status for answer in found} == {status}
    assert {answer.status for answer in health} == {200}
    if status == 401:
        assert found[0].headers["www-authenticate"] == "Bearer"
        assert found[0].json()["field"] == "authorization"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("", 421),
        ("mine.example:8000", 200),
    ],
)
def test_without_keys_only_names_of_this_machine_are_answered(small_bundle, host, status):
    async def asked():
        _, app = served(small_bundle, allowed_hosts=("mine.example",))
        return await ask(app, "GET", "/v2", headers={"host": host})

    assert go(asked()).status == status


def test_a_bucket_holds_a_second_and_fills_at_the_rate():
    limits = RateLimits(5)
    taken = [limits.wait_s("a", now=0.0) for _ in range(7)]
    assert taken == [0, 0, 0, 0, 0, pytest.approx(0.2), pytest.approx(0.2)]
    assert limits.wait_s("b", now=0.0) == 0
    assert limits.wait_s("a", now=0.21) == 0
    assert limits.wait_s("a", now=0.21) > 0
    assert RateLimits(0.5).wait_s("a", now=0.0) == 0


def test_callers_that_are_gone_are_forgotten():
    limits = RateLimits(5)
    for number in range(30_000):
        limits.wait_s(str(number), now=0.0)
    assert len(limits._left) <= 10_000


def test_too_many_requests_of_one_key_are_429_and_others_go_on(small_bundle, keys, monkeypatch):
    monkeypatch.setattr(rate_limits, "monotonic", lambda: 7.0)  # all within one moment

    async def asked():
        _, app = served(small_bundle, keys=ApiKeys.read(keys, {}), rate=3)
        fast = [await ask(app, "GET", "/v2", headers={"x-api-key": KEY}) for _ in range(5)]
        other = await ask(app, "GET", "/v2", headers={"x-api-key": ADMIN})
        return [answer.status for answer in fast], fast[-1].headers["retry-after"], other.status

    assert go(asked()) == ([200, 200, 200, 429, 429], "1", 200)


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setitem(os.environ, "PRUNUS_API_KEYS", f"web {KEY}")
    assert ApiKeys.read(None).caller(KEY) == Caller("web")
