"""What may whoever starts a server set, and what may a client ask for at most?"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from prunus.core.errors import RecipeError, near
from prunus.core.text import shown
from prunus.ship.signing import VerifyPolicy

__all__ = ["ClientLimits", "ServeSettings", "is_loopback"]

RUNTIMES = ("auto", "onnxruntime", "torch")


@dataclass(frozen=True)
class ClientLimits:
    """The most that clients get: sizes in bytes, times in seconds.

    ``held_bytes`` are those of all requests that are read or wait at one time; ``queued`` is how many wait for the model;
    ``batch`` and ``batch_bytes`` how much of it runs at once.
    """

    body_bytes: int = 16 * 2**20
    held_bytes: int = 256 * 2**20
    examples: int = 4096
    queued: int = 1024
    batch: int = 64
    batch_bytes: int = 64 * 2**20
    deadline_s: float = 30.0
    head_bytes: int = 16 * 2**10
    read_s: float = 10.0
    idle_s: float = 60.0
    connections: int = 1024

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise RecipeError(f"limits of the server are above zero: got {name} = {value}")


@dataclass(frozen=True)
class ServeSettings:
    """How one server runs.

    ``name`` is what clients call the model; ``threads`` how many the runtime may use; ``cache`` where exported models are kept;
    ``drain_s`` for how long it still takes requests after it was told to end; ``allowed_hosts`` the names that it may be called
    by where no key is asked for, beside those of the loopback; ``bundles`` the folder of those that may be loaded by name;
    ``policy`` who must have signed what is served; ``tokenizer`` makes token ids of lines of text.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    threads: int | None = None
    runtime: str = "auto"
    cache: Path | None = None
    trust_code: bool = False
    limits: ClientLimits = field(default_factory=ClientLimits)
    keys: Path | None = None
    rate: float | None = None
    allowed_hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    certificate_key: Path | None = None
    bundles: Path | None = None
    policy: VerifyPolicy | None = None
    tokenizer: Path | None = None
    traces: bool = False
    drain_s: float = 0.0
    log_requests: bool = False

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise RecipeError(f"--runtime: unknown {shown(self.runtime)}: {near(self.runtime, RUNTIMES)}")
        if not 0 <= self.port < 65536:
            raise RecipeError(f"--port must be 0 to 65535: got {self.port}")
        if (self.certificate is None) != (self.certificate_key is None):
            raise RecipeError("--tls-certificate and --tls-key go together: got one of them")
        if self.rate is not None and not self.rate > 0:
            raise RecipeError(f"--rate must be above 0 requests a second: got {self.rate}")
        if self.drain_s < 0:
            raise RecipeError(f"--drain must be 0 or more seconds: got {self.drain_s}")


@lru_cache(1000)
def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine reach a server at ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
