"""Which model answers a request, of those that are served under one name?"""

from __future__ import annotations

from prunus.serve.refusal import Refusal
from prunus.serve.running.batcher import Answer
from prunus.serve.running.served_model import ServedModel
from prunus.serve.wire.tensor_data import Array

__all__ = ["Traffic"]


class Traffic:
    """The models of one name; one of them answers."""

    def __init__(self, name: str, primary: ServedModel) -> None:
        self.name, self.primary = name, primary

    @property
    def models(self) -> list[ServedModel]:
        """All that are served now."""
        return [self.primary]

    def model(self, name: str, version: str | None) -> ServedModel:
        """Return the model that clients mean.

        Raises:
            Refusal: there is none (404).
        """
        if name != self.name:
            raise Refusal(404, f"there is no model {name[:100]!r} here: {self.name!r} is served", field="model")
        if version is None:
            return self.primary
        for model in self.models:
            if model.spec.version == version:
                return model
        known = ", ".join(model.spec.version for model in self.models)
        raise Refusal(404, f"{self.name!r} has no version {version[:100]!r}: it has {known}", field="version")

    async def answer(
        self, model: ServedModel, arrays: list[Array], n_bytes: int, timeout_s: float, request_id: str
    ) -> tuple[ServedModel, Answer]:
        """Return what answered, and the answer."""
        return model, await model.answer(arrays, n_bytes, timeout_s)
