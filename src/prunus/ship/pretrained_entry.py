"""Which class of transformers is a model, and which config builds it?

A bundle says it in plain values, so that a folder for ``from_pretrained`` can be made of it without code from anywhere: the class
is one that transformers has.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from prunus.apply.classes.config_settings import built_shapes, shapes_of
from prunus.apply.classes.configs import built_from_config

__all__ = ["PretrainedEntry", "pretrained_entry"]

_LEFT_OUT = ("_name_or_path", "transformers_version", "auto_map", "custom_pipelines")
"""Paths and versions differ from machine to machine, and what names code elsewhere doesn't travel."""
_REFUSED = ("auto_map", "custom_pipelines", "quantization_config", "attn_implementation", "_attn_implementation")
"""What a config says so that loading fetches or runs code from elsewhere."""

ClassName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9_]{0,99}$")]


class PretrainedEntry(BaseModel):
    """A class by its name in transformers, and its config and its defaults for generating, as plain values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    class_name: ClassName
    config: dict[str, Any]
    generation: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _names_no_code(self) -> PretrainedEntry:
        if odd := _named(self.config, _REFUSED):
            raise ValueError(f"a config with {odd!r} has code or weights come from elsewhere: it can't travel")
        return self


def pretrained_entry(model: nn.Module) -> PretrainedEntry | None:
    """Return what builds ``model``; None where it is of no class of transformers, or its config builds other shapes."""
    kind = type(model)
    if not kind.__module__.startswith("transformers.models.") or not built_from_config(model):
        return None
    config = vars(model)["config"]
    if built_shapes(kind, config) != shapes_of(model):
        return None
    generation = getattr(model, "generation_config", None)
    try:
        tree, rules = _plain(config), None if generation is None else _plain(generation)
        return PretrainedEntry(class_name=kind.__name__, config=tree, generation=rules)
    except (TypeError, ValueError):  # something that isn't a plain value, or doesn't travel
        return None


def _plain(config: Any) -> dict[str, Any]:
    """Return the settings as transformers writes them, numbers that aren't finite as words."""
    tree: dict[str, Any] = _without(json.loads(config.to_json_string(use_diff=False)), _LEFT_OUT)
    json.dumps(tree, allow_nan=False)
    return tree


def _without(tree: Any, names: tuple[str, ...]) -> Any:
    if isinstance(tree, dict):
        return {key: _without(value, names) for key, value in tree.items() if key not in names}
    return [_without(value, names) for value in tree] if isinstance(tree, list) else tree


def _named(tree: Any, names: tuple[str, ...]) -> str:
    """Return the first of ``names`` that is a key anywhere in plain values and says something."""
    if isinstance(tree, dict):
        found = next((key for key in names if tree.get(key) is not None), "")
        return found or next((odd for value in tree.values() if (odd := _named(value, names))), "")
    return next((odd for value in tree if (odd := _named(value, names))), "") if isinstance(tree, list) else ""
