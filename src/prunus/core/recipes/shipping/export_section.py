"""For which other runtimes does a run leave its model? The section ``export`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from prunus.core.recipes.section import Section

__all__ = ["HF", "Export", "cut_for_config"]

HF = "hf"
"""The format that is a folder for transformers."""


class Export(Section):
    """Files beside the run's bundle, as ``prunus export`` writes them; each answers as the bundle does, or isn't left."""

    to: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1,
        description="formats: onnx, openvino, torch, mnn, hf, executorch, litert, coreml; with hf, strategy.expressible is true "
        "unless it is said",
    )
    processor: str | None = Field(
        None,
        min_length=1,
        description="hf: the folder of the model that is pruned, whose tokenizer or processor goes along",
    )

    @field_validator("to")
    @classmethod
    def _each_once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(formats)) != len(formats):
            raise ValueError(f"every format may be given once: got {list(formats)}")
        return formats


def cut_for_config(tree: Any) -> Any:
    """Return a recipe's tree in which ``strategy.expressible`` is said where a folder for transformers is wanted.

    >>> cut_for_config({"export": {"to": ["hf"]}, "strategy": {"keep_fraction": 0.5}})["strategy"]
    {'keep_fraction': 0.5, 'expressible': True}
    """
    if not isinstance(tree, Mapping) or not isinstance(tree.get("strategy"), Mapping):
        return tree
    export, strategy = tree.get("export"), tree["strategy"]
    to = export.get("to") if isinstance(export, Mapping) else getattr(export, "to", ())
    if not isinstance(to, (list, tuple)) or HF not in to or strategy.get("expressible") is not None:
        return tree
    return {**tree, "strategy": {**strategy, "expressible": True}}
