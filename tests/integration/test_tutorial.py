"""The tutorial does what it says: every block is run, in order, in one empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from prunus.cli.app import invoke

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "first-run.md"
BLOCK = re.compile(r"```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<text>.*?)```", re.DOTALL)


def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    kinds = []
    for block in BLOCK.finditer(PAGE.read_text()):
        kinds.append(block["kind"])
        if block["kind"] == "yaml":
            Path(block["file"]).write_text(block["text"])
        elif block["kind"] == "console":
            for line in block["text"].splitlines():
                words = shlex.split(line.removeprefix("$ "))
                assert words[0] == "prunus"
                assert invoke(words[1:]) == 0, capsys.readouterr().err
        elif block["kind"] == "python":
            exec(compile(block["text"], str(PAGE), "exec"), names)
        else:
            pytest.fail(f"a block of kind {block['kind']} is not run")
    assert {"yaml", "console", "python"} <= set(kinds)


def test_every_command_has_a_page_and_every_page_a_command(capsys):
    assert invoke(["--help"]) == 0
    listed = set(re.findall(r"^│ (\w[\w-]*) ", capsys.readouterr().out, re.MULTILINE))
    pages = {path.stem for path in (PAGE.parents[1] / "reference" / "commands").glob("*.md")}
    assert pages
    assert pages == listed


def test_no_link_between_the_pages_is_broken():
    docs = PAGE.parents[1]
    for page in [*docs.rglob("*.md"), docs.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
