"""How is a run's record written and read back, and what does a file say that isn't one?"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from prunus.core.errors import PlanError
from prunus.core.files.json_text import MAX_BYTES, JsonError, parse_json
from prunus.core.files.near_paths import near_path
from prunus.core.files.plain_files import NotPlainError, open_plain, write_text
from prunus.core.text import shown
from prunus.report.record import RunRecord

__all__ = ["load_record", "record_json", "save_record"]


def record_json(record: RunRecord) -> str:
    """Return the text of ``record.json``."""
    return record.model_dump_json(indent=2) + "\n"


def save_record(record: RunRecord, path: Path) -> None:
    """Write the record in one step."""
    write_text(path, record_json(record))


def load_record(path: Path) -> RunRecord:
    """Return the record of a finished run.

    Raises:
        PlanError: there is none, or it isn't one that this version knows.
    """
    try:
        with open_plain(path) as file:
            content = file.read(MAX_BYTES + 1)
        tree = parse_json(content)
        if not isinstance(tree, dict) or (
            unknown := next((key for key in tree if key not in RunRecord.model_fields), None)
        ):
            got = f"the unknown key {shown(unknown)}" if isinstance(tree, dict) else f"a {type(tree).__name__}"
            raise PlanError(
                f"{path}: expected the record of a run, got {got}; it was damaged or written by another version of prunus"
            )
        return RunRecord.model_validate_json(content)
    except JsonError as error:
        raise PlanError(f"{path}: {error}; it was damaged or isn't the record of a run") from error
    except NotPlainError as error:
        raise PlanError(f"{error.strerror}; a record is a plain file") from error
    except OSError as error:
        hint = "a run has one when it is finished; go on with `prunus run RECIPE --resume`"
        if not path.parent.is_dir():
            hint = f"there is no such folder; {near_path(path.parent) or 'give the folder of a finished run'}"
        raise PlanError(f"no record at {path}: {hint}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise PlanError(
            f"{path}: {key}: {first['msg']}; it was damaged or written by another version of prunus"
        ) from error
