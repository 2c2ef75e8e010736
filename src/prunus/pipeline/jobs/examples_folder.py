"""Where do the commands about examples work, and how do they share one table?

Each writes its columns into the table in the output folder and leaves those of others as they are, people's own among them. What it
keeps for a resume lies in a folder of its own beside it, so that none of them takes the place of a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from prunus.core.errors import OutputError
from prunus.core.events import Listener
from prunus.core.files.example_table import FILES, Column, ExampleTable, read_example_table, write_example_table
from prunus.core.files.plain_files import explain_os_error, remove
from prunus.core.recipes.recipe import Recipe
from prunus.data import joined_print, print_of, row_endings
from prunus.pipeline.jobs.run_folder import EXAMPLES_WORK, TABLE, open_workspace
from prunus.pipeline.jobs.workspace import Workspace

__all__ = ["check_undecided", "of_files", "open_examples", "table_path", "write_columns"]


def table_path(recipe: Recipe) -> Path:
    """Return where the table of a recipe's examples lies."""
    return Path(recipe.output) / TABLE


@contextmanager
def open_examples(recipe: Recipe, *, resume: bool, overwrite: bool, listener: Listener) -> Iterator[Workspace]:
    """Yield a workspace beside the table, which is thrown away once the block is done; after an error it stays for a resume.

    Raises:
        OutputError: another command holds it, or what a killed one left is neither resumed nor overwritten.
    """
    folder = Path(recipe.output) / EXAMPLES_WORK
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link, expected a folder of prunus: remove it")
    with open_workspace(recipe, folder, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        yield workspace
        try:
            remove(folder)
        except OSError as error:
            raise explain_os_error(error, folder) from error


def check_undecided(path: Path, *, overwrite: bool) -> None:
    """Refuse to put new decisions in the place of those in a table, which somebody may have changed, unless that is asked for.

    Raises:
        OutputError: there are some.
        PlanError: what lies there is no table of examples.
    """
    if overwrite or not path.exists():
        return
    decided = read_example_table(path).columns.get("decision", np.zeros(0, object))
    n = sum(decision is not None for decision in decided.tolist())
    if n:
        raise OutputError(
            f"{path} holds {n} decisions already, which may have been changed by hand: add --overwrite to replace them, or move it"
        )


def of_files(table: ExampleTable, recipe: Recipe) -> ExampleTable:
    """Return the table so that it says of which file its rows are, where they are of one that ``prunus.kept_rows`` reads."""
    path = Path(recipe.data.source)
    if path.suffix.lower() not in row_endings() or not path.is_file():
        return table
    return table.with_columns({FILES: np.full(len(table), joined_print([print_of(path)]), object)})


def write_columns(path: Path, table: ExampleTable, *, overwrite: bool = False) -> ExampleTable:
    """Write ``table``, with the other columns of the table that lies there, and return what was written.

    Args:
        path: of the file.
        table: the columns to add or replace, in the order of rows that holds from now on.
        overwrite: replace a table of other data, too.

    Raises:
        OutputError: a table of other data lies there, or nothing can be written.
        PlanError: what lies there is no table of examples.
    """
    if path.exists():
        held = read_example_table(path)
        same = held.fingerprint == table.fingerprint and set(held.ids) == set(table.ids)
        if not same and not overwrite:
            raise OutputError(
                f"{path} is of other data (fingerprint {held.fingerprint[:12]}, {len(held)} examples; got "
                f"{table.fingerprint[:12]}, {len(table)}): add --overwrite, or choose another output folder"
            )
        if same:
            where = {name: row for row, name in enumerate(held.ids)}
            order = np.array([where[name] for name in table.ids], np.int64)
            others: dict[str, Column] = {name: column[order] for name, column in held.columns.items()}
            table = ExampleTable(
                table.ids, table.fingerprint, {**others, **table.columns}, {**held.facts, **table.facts}
            )
    write_example_table(table, path)
    return table
