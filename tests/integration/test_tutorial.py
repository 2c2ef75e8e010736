"""The tutorials do what they say: every block is run, in order, in one empty folder."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE_S, free_port
from prunus.cli.app import invoke

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorial"
BLOCK = re.compile(r"```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<text>.*?)```", re.DOTALL)


class Terminal:
    """Does what the lines of a page say: ``prunus ... &`` goes on while others run, until ``kill %1``."""

    def __init__(self) -> None:
        self.behind: subprocess.Popen[bytes] | None = None

    def do(self, line: str) -> str:
        """Return what went wrong, or nothing."""
        words = shlex.split(line.removeprefix("$ "))
        if words == ["kill", "%1"]:
            assert self.behind is not None
            self.behind.send_signal(signal.SIGTERM)
            code, self.behind = self.behind.wait(PATIENCE_S), None
            return f"it ended with {code}" if code else ""
        assert words[0] == "prunus"
        if words[-1] == "&":
            self.behind = subprocess.Popen([sys.executable, "-m", *words[:-1]])
            return ""
        return f"{line} ended with {code}" if (code := invoke(words[1:])) else ""

    def leave(self) -> None:
        """End what still runs."""
        if self.behind is not None:
            self.behind.kill()
            self.behind.wait()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of what the runtimes import
@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    kinds, terminal = [], Terminal()
    port = str(free_port())
    try:
        for block in BLOCK.finditer(page.read_text()):
            kinds.append(block["kind"])
            text = block["text"].replace("8000", port)
            if block["kind"] == "yaml":
                Path(block["file"]).write_text(text)
            elif block["kind"] == "console":
                for line in text.splitlines():
                    wrong = terminal.do(line)
                    assert not wrong, f"{wrong}: {capfd.readouterr().err}"
            elif block["kind"] == "python":
                exec(compile(text, str(page), "exec"), names)
            else:
                pytest.fail(f"a block of kind {block['kind']} is not run")
    finally:
        terminal.leave()
    assert {"yaml", "console", "python"} <= set(kinds)
    assert terminal.behind is None


def test_every_command_has_a_page_and_every_page_a_command(capsys):
    assert invoke(["--help"]) == 0
    listed = set(re.findall(r"^│ (\w[\w-]*) ", capsys.readouterr().out, re.MULTILINE))
    pages = {path.stem for path in (TUTORIALS.parent / "reference" / "commands").glob("*.md")}
    assert pages
    assert pages == listed


def test_no_link_between_the_pages_is_broken():
    docs = TUTORIALS.parent
    for page in [*docs.rglob("*.md"), docs.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
