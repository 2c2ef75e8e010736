"""May this request come in: is its key known, its host ours, its caller not too fast?

On the loopback a server may run without keys. Then only requests to a loopback name are answered: a web page that made its own name
point to this machine (DNS rebinding) isn't one. Changing what is served needs an admin's key always.
"""

from __future__ import annotations

from collections.abc import Mapping

from prunus.core.errors import RecipeError
from prunus.serve.gate.api_keys import ENVIRONMENT, ApiKeys, Caller
from prunus.serve.gate.rate_limits import RateLimits
from prunus.serve.refusal import Refusal
from prunus.serve.serve_settings import ServeSettings, is_loopback

__all__ = ["OPEN", "Admission"]

OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What anyone may ask: whoever runs the server asks it all the time."""
_NOBODY = Caller("anonymous")


class Admission:
    """The keys, the rates and the names of one server.

    Raises:
        RecipeError: others than this machine would reach it without a key.
    """

    def __init__(self, settings: ServeSettings, keys: ApiKeys) -> None:
        if not keys.callers and not is_loopback(settings.host):
            raise RecipeError(
                f"a server at {settings.host} is reached from other machines, so it needs API keys: give --keys FILE (lines of "
                f"NAME KEY) or {ENVIRONMENT}, or stay on 127.0.0.1"
            )
        self._keys, self._hosts = keys, frozenset(host.lower() for host in settings.allowed_hosts)
        self._rates = None if settings.rate is None else RateLimits(settings.rate)

    def admit(self, path: str, headers: Mapping[bytes, bytes], client: str) -> Caller:
        """Return who asks.

        Raises:
            Refusal: 401 without a key that is known, 421 for another host, 429 too many.
        """
        if path in OPEN:
            return _NOBODY
        caller = self._caller(headers)
        if self._rates is not None:
            wait = self._rates.wait_s(caller.name if self._keys.callers else client)
            if wait:
                raise Refusal(429, "more requests than this key may send a second", retry_after_s=wait)
        return caller

    def admin(self, caller: Caller) -> None:
        """Check that a caller may change what is served.

        Raises:
            Refusal: 403.
        """
        if not caller.admin:
            raise Refusal(
                403,
                "this needs the key of an admin: a line NAME KEY admin in the server's key file",
                field="authorization",
            )

    def _caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        if not self._keys.callers:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name) and name.lower() not in self._hosts:
                raise Refusal(421, f"this server isn't called {name[:100]!r}: allow it with --allow-host", field="host")
            return _NOBODY
        given = headers.get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer":
            key = headers.get(b"x-api-key", b"")
        caller = self._keys.caller(key.strip().decode("latin-1"))
        if caller is None:
            raise Refusal(
                401,
                "this server asks for an API key: Authorization: Bearer KEY",
                field="authorization",
                challenge=True,
            )
        return caller
