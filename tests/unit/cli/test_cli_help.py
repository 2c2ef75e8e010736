"""Help is where people look for it, and a shell can complete what they type."""

import subprocess
import sys

import pytest

import prunus
from prunus.cli.app import app, invoke

COMMANDS = [(command.name or command.callback.__name__) for command in app.registered_commands]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_a_short_h_is_help(command, capsys):
    said = []
    for flag in ("-h", "--help"):
        assert invoke([*command.split(), flag]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "Usage: " in said[0]


def test_the_version_needs_no_command(capsys):
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"{prunus.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(shell, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'prunus'; from prunus.cli import main; main([])"],
        env={"_PRUNUS_COMPLETE": f"source_{shell}", "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_PRUNUS_COMPLETE" in done.stdout, done.stderr
