"""The command line ends as it should: when it is stopped, when nobody reads on, on a terminal without Unicode."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

import prunus.pipeline
from prunus.cli.app import invoke
from prunus.cli.bundles import export_command
from prunus.report import save_record
from report_samples import sample


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_stop_says_that_it_can_be_resumed(command, small_recipe, monkeypatch, capsys):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(prunus.pipeline, {"run": "run", "plan": "make_plan"}[command], stopped)
    assert invoke([command, str(small_recipe()), "--quiet"]) == 130
    assert capsys.readouterr().err == "stopped: what is done is kept; add --resume to go on\n"


def test_a_stop_of_what_keeps_nothing_promises_nothing(tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("prunus.pipeline.graph_view.graph_of_model", stopped)
    assert invoke(["graph", "mlp", "--input", "2x4"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("line", ["schema", "graph mlp --input 2x4", "criteria"])
def test_a_reader_that_has_seen_enough_is_no_failure(line):
    started = subprocess.Popen(
        [sys.executable, "-m", "prunus", *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started.stdout.close()
    said = started.stderr.read()
    started.stderr.close()
    assert (started.wait(), said) == (0, "")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_terminal_without_unicode_gets_every_line_with_what_it_has(encoding, tmp_path, monkeypatch):
    save_record(sample(), tmp_path / "record.json")
    shown = {}
    for name in (encoding, "utf-8"):
        out = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=name, write_through=True))
        assert invoke(["report", str(tmp_path)]) == 0
        shown[name] = out.getvalue().decode("utf-8" if name == "ascii" else name)  # click takes ASCII for a mistake
    assert len(shown[encoding].splitlines()) == len(shown["utf-8"].splitlines())
    assert "?" not in shown[encoding].replace("?", "", shown["utf-8"].count("?"))


@pytest.mark.parametrize("watched", [True, False])
def test_an_export_says_what_takes_so_long_where_somebody_watches(watched, tmp_path, monkeypatch, capsys):
    said = io.StringIO()
    facts = {
        "path": "x",
        "format": "onnx",
        "size_bytes": 1,
        "difference": 0.0,
        "batches": [1],
        "zeros": "no",
        "sizes": [],
    }
    monkeypatch.setattr(export_command, "Console", lambda **options: Console(file=said, force_terminal=watched))
    monkeypatch.setattr("prunus.core.recipes.named_places.check_bundle", lambda path: None)
    monkeypatch.setattr(prunus.pipeline, "export_bundle", lambda *arguments, **options: facts)
    assert invoke(["export", str(tmp_path), "--to", "onnx", "--json"]) == 0
    assert ("exporter is at work" in said.getvalue()) == watched
    assert capsys.readouterr().err == ""
