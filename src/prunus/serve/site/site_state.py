"""What do the parts of one server share: its settings, who may come in, what is served, what is counted?"""

from __future__ import annotations

from dataclasses import dataclass

from prunus.serve.gate.admission import Admission
from prunus.serve.serve_settings import ServeSettings
from prunus.serve.site.serve_metrics import ServeMetrics
from prunus.serve.site.text_tokens import Tokenizer
from prunus.serve.traffic.model_traffic import Traffic
from prunus.serve.traffic.replacement import Replacement
from prunus.serve.watch.traces import NO_TRACES, Traces

__all__ = ["Site"]


@dataclass
class Site:
    """One server's state; all of it belongs to the thread of the event loop.

    ``ends`` is set when the server was told to end; ``held_bytes`` are those of bodies that are read or wait.
    """

    settings: ServeSettings
    admission: Admission
    traffic: Traffic
    replacement: Replacement
    metrics: ServeMetrics
    tokenizer: Tokenizer | None = None
    traces: Traces = NO_TRACES
    ends: bool = False
    held_bytes: int = 0

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return not self.ends
