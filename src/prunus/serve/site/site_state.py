"""What do the parts of one server share: its settings, who may come in, what is served, what is counted?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prunus.serve.gate.admission import Admission
from prunus.serve.serve_settings import ServeSettings
from prunus.serve.site.serve_metrics import ServeMetrics
from prunus.serve.site.text_tokens import Tokenizer
from prunus.serve.traffic.model_traffic import Traffic
from prunus.serve.traffic.replacement import Replacement
from prunus.serve.watch.traces import NO_TRACES, Traces

__all__ = ["InFlight", "Site"]


class InFlight:
    """How many requests are read or answered now; 2, so that none is taken for the only one, until a server says it."""

    count: Callable[[], int] = staticmethod(lambda: 2)

    def __call__(self) -> int:
        """Return the number."""
        return self.count()


@dataclass
class Site:
    """One server's state; all of it belongs to the thread of the event loop.

    ``in_flight`` says how many requests there are at a time; ``ends`` is set when the server was told to end; ``held_bytes`` are
    those of bodies that are read or wait.
    """

    settings: ServeSettings
    admission: Admission
    traffic: Traffic
    replacement: Replacement
    metrics: ServeMetrics
    tokenizer: Tokenizer | None = None
    traces: Traces = NO_TRACES
    in_flight: InFlight = field(default_factory=InFlight)
    ends: bool = False
    held_bytes: int = 0

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return not self.ends
