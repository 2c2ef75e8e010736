"""How is a plan kept on disk so that people, spreadsheets and prunus can all read it?

A plan is a folder: ``plan.json`` says what was decided in numbers and for which model and data, ``units.parquet`` has one row per
unit (operation, criterion, stratum, unit, name, saliency, keep, reason, round, before, after). Same plan, same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunus.core.code.imports import one_line
from prunus.core.errors import PlanError
from prunus.core.files.example_table import ExampleTable, write_example_table
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.json_text import read_json_file
from prunus.core.files.near_paths import near_path
from prunus.core.files.parquet_file import read_parquet
from prunus.core.files.plain_files import atomic_folder, open_plain, write_json
from prunus.core.files.sealed import sealed_tree, tree_sha256
from prunus.core.text import shown
from prunus.core.types import Decision, Operation, Plan, Step

__all__ = ["load_plan", "plan_summary", "run_of_plan", "save_plan"]

FORMAT = 2
_SCHEMA = pa.schema(
    [
        ("step", pa.int16()),
        ("operation", pa.dictionary(pa.int8(), pa.string())),
        ("granularity", pa.dictionary(pa.int8(), pa.string())),
        ("criterion", pa.dictionary(pa.int8(), pa.string())),
        ("stratum", pa.dictionary(pa.int32(), pa.string())),
        ("unit", pa.int64()),
        ("label", pa.string()),
        ("saliency", pa.float64()),
        ("keep", pa.bool_()),
        ("reason", pa.dictionary(pa.int32(), pa.string())),
        ("round", pa.int16()),
        ("before", pa.float64()),
        ("after", pa.float64()),
    ]
)
_WITH_ERROR = _SCHEMA.append(pa.field("error", pa.float64()))
"""Where a criterion knows the standard error of its saliencies."""


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**62)]


class _Part(BaseModel):
    """A part of ``plan.json``: types are exact, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Stratum(_Part):
    name: str
    units: Count
    kept: Count


class _Step(_Part):
    operation: Operation
    granularity: str
    criterion: str
    units: Count
    kept: Count
    settings: dict[str, Any]
    strata: list[_Stratum]


class _Header(_Part):
    """What ``plan.json`` says."""

    format: Literal[2]
    seed: Count
    recipe: dict[str, Any]
    fingerprints: dict[str, str]
    steps: list[_Step]
    units_sha256: Sha256
    sha256: Sha256


def plan_summary(plan: Plan) -> list[dict[str, Any]]:
    """Return, per step and stratum, how many units there were and how many stay."""
    return [
        {
            "operation": step.operation,
            "granularity": step.granularity,
            "criterion": step.criterion,
            "units": step.n_units,
            "kept": step.n_kept,
            "settings": step.settings,
            "strata": [{"name": d.stratum, "units": len(d.unit), "kept": d.n_kept} for d in step.decisions],
        }
        for step in plan.steps
    ]


def save_plan(plan: Plan, folder: Path, table: ExampleTable | None = None) -> None:
    """Write ``plan`` to ``folder`` in one step, with what it says of examples as a table that people may change.

    Raises:
        OutputError: the disk is full or the folder can't be written.
    """
    with atomic_folder(folder) as temporary:
        units = temporary / "units.parquet"
        known = any(decision.error is not None for step in plan.steps for decision in step.decisions)
        schema = _WITH_ERROR if known else _SCHEMA
        with pq.ParquetWriter(units, schema, compression="zstd") as writer:
            for number, step in enumerate(plan.steps):
                for decision in step.decisions:
                    writer.write_table(_rows(number, step, decision, schema))
        header = {
            "format": FORMAT,
            "seed": plan.seed,
            "recipe": plan.recipe,
            "fingerprints": plan.fingerprints,
            "steps": plan_summary(plan),
            "units_sha256": sha256_file(units),
        }
        write_json(temporary / "plan.json", sealed_tree(header))
        if table is not None:
            write_example_table(table, temporary / "examples.parquet")


def run_of_plan(path: Path) -> Path:
    """Return the folder of the run that the plan at ``path`` was made in, if it still lies there."""
    return _plan_folder(path).resolve().parent


def _plan_folder(path: Path) -> Path:
    """Return the folder of a plan that is named by itself, by its ``plan.json``, or by its run."""
    if path.name == "plan.json":
        return path.parent
    return path / "plan" if (path / "plan" / "plan.json").exists() else path


def load_plan(folder: Path) -> Plan:
    """Return the plan that ``folder`` holds.

    Raises:
        PlanError: no plan there, another format, or a damaged file.
    """
    folder = _plan_folder(folder)
    try:
        header = _read_header(folder / "plan.json")
        units = folder / "units.parquet"
        with open_plain(units) as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != header.units_sha256:
            raise PlanError(
                f"{units} was changed after it was written (its SHA-256 differs from plan.json): make the plan anew"
            )
        table = read_parquet(pa.BufferReader(content), units, len(content), PlanError)
        if table.schema.names not in (_SCHEMA.names, _WITH_ERROR.names):
            raise PlanError(
                f"{units}: expected the columns {', '.join(_SCHEMA.names)}, got {', '.join(table.schema.names)}"
            )
        return Plan(_read_steps(header.steps, table), header.seed, header.recipe, header.fingerprints)
    except FileNotFoundError as error:
        hint = near_path(folder)
        raise PlanError(
            f"no plan at {folder}: expected plan.json and units.parquet there, {error.filename} is missing{'; ' * bool(hint)}{hint}"
        ) from error
    except (OSError, ValueError, TypeError, RecursionError, pa.ArrowException) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"{folder}: this plan is damaged ({one_line(error)[:200]}): make it anew") from error


def _read_header(path: Path) -> _Header:
    tree = read_json_file(path)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        got = tree.get("format") if isinstance(tree, dict) else tree
        raise PlanError(f"{path}: expected format {FORMAT}, got {shown(got)}; use the prunus that wrote it")
    try:
        header = _Header.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise PlanError(f"{path}: {key}: {first['msg']}, got {shown(first['input'])}: make the plan anew") from error
    if tree_sha256(tree) != header.sha256:
        raise PlanError(
            f"{path} was changed after it was written (its SHA-256 isn't the one in it): make the plan anew, and change the recipe "
            "instead (-o KEY=VALUE, or --recipe)"
        )
    return header


def _rows(number: int, step: Step, decision: Decision, schema: pa.Schema) -> pa.Table:
    n = len(decision.unit)

    def constant(value: str, index: Any) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, index)), pa.array([value]))

    def optional(column: Any, kind: Any) -> pa.Array:
        return pa.nulls(n, kind) if column is None else pa.array(column, kind, from_pandas=True)

    reasons, codes = np.unique(decision.reason.astype(str), return_inverse=True) if n else (np.array([""]), np.zeros(0))
    columns = [
        pa.array(np.full(n, number, np.int16)),
        constant(step.operation, np.int8),
        constant(step.granularity, np.int8),
        constant(step.criterion, np.int8),
        constant(decision.stratum, np.int32),
        pa.array(decision.unit, pa.int64()),
        optional(decision.label, pa.string()),
        pa.array(decision.saliency, pa.float64()),
        pa.array(decision.keep, pa.bool_()),
        pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(reasons.tolist(), pa.string())),
        optional(decision.round, pa.int16()),
        optional(decision.before, pa.float64()),
        optional(decision.after, pa.float64()),
        optional(decision.error, pa.float64()),
    ]
    return pa.Table.from_arrays(columns[: len(schema)], schema=schema)


def _read_steps(summaries: list[_Step], table: pa.Table) -> tuple[Step, ...]:
    """Cut the rows back into decisions: they were written in the order of the summary."""
    expected = sum(stratum.units for summary in summaries for stratum in summary.strata)
    if table.num_rows != expected:
        raise PlanError(f"units.parquet: expected {expected} rows, got {table.num_rows}; make the plan anew")
    steps, offset = [], 0
    for summary in summaries:
        decisions = []
        for stratum in summary.strata:
            rows = table.slice(offset, stratum.units)
            offset += stratum.units
            decisions.append(_decision(stratum.name, rows, repairs=summary.operation in ("relabel", "replace")))
        steps.append(
            Step(summary.operation, summary.granularity, summary.criterion, tuple(decisions), summary.settings)
        )
    return tuple(steps)


def _decision(stratum: str, rows: pa.Table, *, repairs: bool) -> Decision:
    """Return one stratum; a step that repairs values has them even where nothing was repaired."""

    def column(name: str) -> Any:
        return rows[name].combine_chunks()

    def optional(name: str, kind: Any, *, always: bool = False) -> Any:
        values = column(name)
        return (
            None
            if values.null_count == len(values) and not always
            else values.to_numpy(zero_copy_only=False).astype(kind)
        )

    return Decision(
        stratum=stratum,
        unit=column("unit").to_numpy(),
        saliency=column("saliency").to_numpy(zero_copy_only=False),
        keep=column("keep").to_numpy(zero_copy_only=False),
        reason=np.array(column("reason").to_pylist(), dtype=object),
        round=optional("round", np.int64),
        label=optional("label", object),
        before=optional("before", np.float64, always=repairs),
        after=optional("after", np.float64, always=repairs),
        error=optional("error", np.float64) if "error" in rows.column_names else None,
    )
