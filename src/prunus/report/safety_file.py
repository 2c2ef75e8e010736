"""How is it read back how safe a model is, and what does a file say that isn't that?"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from prunus.core.errors import PlanError
from prunus.core.files.json_text import MAX_BYTES, JsonError, parse_json
from prunus.core.files.plain_files import NotPlainError, open_plain
from prunus.report.record_safety import SafetyFacts

__all__ = ["load_safety"]


def load_safety(path: Path) -> SafetyFacts:
    """Return what an earlier call found.

    Raises:
        PlanError: the file can't be read, or isn't one that this version knows.
    """
    remedy = "remove it, and measure anew (prunus evaluate)"
    try:
        with open_plain(path) as file:
            content = file.read(MAX_BYTES + 1)
        parse_json(content)
        return SafetyFacts.model_validate_json(content)
    except JsonError as error:
        raise PlanError(f"{path}: {error}; {remedy}") from error
    except NotPlainError as error:
        raise PlanError(f"{error.strerror}; expected a plain file: {remedy}") from error
    except OSError as error:
        raise PlanError(f"{path}: can't be read: {error.strerror}; {remedy}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise PlanError(f"{path}: {key}: {first['msg']}; {remedy}") from error
