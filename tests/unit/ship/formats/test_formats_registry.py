"""Every format is registered in one place, and the command, the extras and the docs know all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from prunus.cli.app import app
from prunus.core.errors import UnknownNameError
from prunus.ship.formats import FORMATS, Format, format_of

ROOT = Path(__file__).parents[4]


def test_every_file_of_a_format_is_registered_by_the_name_that_its_module_has():
    modules = {type(form).__module__.rpartition(".")[2] for form in FORMATS.values()}
    files = (ROOT / "src/prunus/ship/formats").glob("to_*.py")
    assert modules == {f"to_{name}" for name in FORMATS} == {file.stem for file in files}
    assert all(isinstance(form, Format) and form.name == name for name, form in FORMATS.items())


def test_a_name_that_isnt_there_lists_those_that_are():
    with pytest.raises(UnknownNameError, match=f"choose one of: {', '.join(sorted(FORMATS))}"):
        format_of("zzz")


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_needs_is_an_extra_of_the_package(name):
    if not FORMATS[name].packages:
        return
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    offered = {re.split(r"[<>=\[; ]", line)[0].lower().replace("-", "_") for line in extras[FORMATS[name].extra]}
    assert {package.partition(".")[0].lower() for package in FORMATS[name].packages} <= offered


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_and_its_page_name_the_format(name):
    (option,) = [one for one in typer.main.get_command(app).commands["export"].params if "--to" in one.opts]
    assert re.search(rf"\b{name}\b", option.help)
    page = (ROOT / "docs/reference/commands/export.md").read_text()
    assert f"\n| `{name}` |" in page
    assert not FORMATS[name].extra or f"prunus[{FORMATS[name].extra}]" in page


VARIES = {"sizes": "batch, lengths, image sizes", "batch": "batch", "none": "nothing", "bounded": "batch to 8"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_of_the_guide_says_what_the_registry_says(name):
    form = FORMATS[name]
    page = (ROOT / "docs/how-to/export.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    _, _, file, extra, here, varies, _, checked, _ = (cell.strip() for cell in row.split("|"))
    assert file == (f"`.{form.ending or name}`" if form.ending or not form.files else "folder")
    assert extra == (f"`{form.extra}`" if form.extra else "none")
    assert (here, checked) == (("yes", "outputs") if form.runs_here() else ("no", "structure"))
    assert varies.startswith(VARIES[form.free])
