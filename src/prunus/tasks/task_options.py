"""What has a file to say of a task, so that answers are read as they were?

The registered name, and what it was made with beside that: plain values, whose types are those of the task's own fields. A task
that isn't registered is Python code, which no file holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from prunus.core.errors import RecipeError
from prunus.core.text import shown
from prunus.tasks.regression import Regression
from prunus.tasks.task import Task, made_of, tasks

__all__ = ["options_of", "task_of_options", "unscaled"]


def options_of(task: Task) -> dict[str, Any]:
    """Return what a registered task was made with, but for what it is without being told, as values that JSON can hold.

    Raises:
        RecipeError: a value is none; it is named.

    >>> from prunus.tasks import Detection
    >>> options_of(Detection(("cat", "dog"), nms=0.5))
    {'class_names': ['cat', 'dog'], 'nms': 0.5}
    """
    if not is_dataclass(task):
        return {}
    found: dict[str, Any] = {}
    usual = made_of(type(task), class_names=task.class_names)
    for field in fields(task):
        value = getattr(task, field.name)
        if field.init and (value != getattr(usual, field.name) or (field.name == "class_names" and value)):
            try:
                found[field.name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise RecipeError(
                    f"task {task.name}: {field.name} must be a plain value to go into a file: got {shown(value)}"
                ) from error
    return found


def task_of_options(name: str, options: Mapping[str, Any], **facts: Any) -> Task:
    """Return the registered task that a file describes.

    Args:
        facts: what else is known of the data; ``options`` come before it.

    Raises:
        RecipeError: there is no such task or option, or a value is of another type; it says what fits.
    """
    kind = tasks[name]
    own: set[str] = {field.name for field in fields(kind) if field.init} if is_dataclass(kind) else set()
    types = get_type_hints(kind) if options else {}
    read: dict[str, Any] = {}
    for key, value in options.items():
        if key not in own:
            raise RecipeError(f"task {name} has the options {', '.join(sorted(own)) or 'none'}: got {shown(key)}")
        try:
            read[key] = TypeAdapter(types[key], config=_EXACT).validate_json(json.dumps(value), strict=True)
        except (ValidationError, TypeError, ValueError) as error:
            raise RecipeError(f"task {name}: {key} must be a {_shown_type(types[key])}: got {shown(value)}") from error
    return made_of(kind, **{**facts, **read})


_EXACT = ConfigDict(allow_inf_nan=False)


def _shown_type(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)


def unscaled(task: Task) -> Task:
    """Return the task for answers in the targets' own units."""
    return replace(task, mean=0.0, deviation=1.0) if isinstance(task, Regression) else task
