"""Recovery through the command line: losses of one's own, divergence and resume, methods that need more than is there."""

import json
import sys
from pathlib import Path

import pytest

from prunus.cli.app import invoke
from prunus.core.files.plan_file import load_plan


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def fails(capsys, *command: str) -> tuple[int, str]:
    code = invoke([*command, "--quiet"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


TABLE = {
    "data": {"source": "sklearn:diabetes"},
    "model": {"builder": "mlp", "args": {"width": 16}},
    "train": {"epochs": 3},
    "strategy": {"criterion": "magnitude_l2", "granularity": "weight", "keep_fraction": 0.5},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8}},
}


def test_a_recovery_that_diverges_keeps_the_last_good_state_and_resumes_slower(small_recipe, capsys):
    """No stand-in: plain gradient descent on squares with a step that is too long, and a tenth of it that isn't."""
    recovery = {
        "epochs": 12,
        "optimizer": "sgd",
        "momentum": 0,
        "learning_rate": 1.5,
        "decay": "constant",
        "clip_norm": None,
    }
    recipe = str(small_recipe(**TABLE, recovery=recovery))
    code, line = fails(capsys, "run", recipe)
    assert code == 8
    for words in (
        "seed 0 / recover 1 of 1",
        "in epoch",
        "step",
        "lower the learning_rate",
        "a resume goes on from there",
    ):
        assert words in line
    (kept,) = Path("out/.work").glob("*recover*.checkpoint")
    assert kept.stat().st_size > 0
    assert not Path("out/record.json").exists()
    assert invoke(["run", recipe, "--quiet", "--resume"]) == 0
    notes = [json.loads(text) for text in Path("out/log.jsonl").read_text().splitlines()]
    (note,) = [item["message"] for item in notes if "diverged before" in item["message"]]
    assert "the learning rate times 0.1" in note
    assert json.loads(Path("out/record.json").read_text())["seeds"] == [0]


LOSSES = """
import torch
seen = []
def squared(outputs, batch):
    seen.append(outputs.requires_grad)
    return (outputs.softmax(1) - torch.nn.functional.one_hot(batch.targets, outputs.shape[1])).square().sum(1).mean()
def first_class(outputs, batch):
    return outputs[:, 0].mean()
def rows(outputs, batch):
    return outputs.sum(1)
def cut_off(outputs, batch):
    return outputs.detach().sum()
def wrong(outputs, batch):
    return outputs.nothing()
"""


def test_a_loss_of_one_s_own_trains_and_judges(small_recipe, tmp_path):
    (tmp_path / "cli_losses.py").write_text(LOSSES)
    kept = []
    for number, loss in enumerate((None, "cli_losses:squared")):
        sections = {"train": {"epochs": 0, "loss": loss}, "recovery": {"method": "distil", "epochs": 1}}
        assert invoke(["run", str(small_recipe(**sections)), "--quiet", "-o", f"output=o{number}"]) == 0
        (step,) = load_plan(Path(f"o{number}")).steps
        kept.append([d.saliency.tolist() for d in step.decisions])
    assert kept[0] != kept[1]
    import cli_losses

    assert any(cli_losses.seen)


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("train.loss=cli_losses:sqared", 3, ["train.loss", "sqared", "squared"]),
        ("recovery.loss=cli_nowhere:f", 3, ["recovery.loss", "cli_nowhere"]),
        ("train.loss=cli_losses:seen", 3, ["train.loss", "must be a function", "list"]),
        ("train.loss=cli_losses:rows", 5, ["train.loss", "one number", "(2,)"]),
        ("train.loss=cli_losses:cut_off", 5, ["train.loss", "no gradient"]),
        ("recovery.loss=cli_losses:wrong", 5, ["recovery.loss", "AttributeError", "nothing"]),
        ("train.precision=float16", 3, ["train.precision", "CUDA", "bfloat16"]),
        ("recovery.precision=float16", 3, ["recovery.precision", "CUDA"]),
        (
            "recovery={method: distil, distil: {features: 1, modules: [convv1]}}",
            3,
            ["distil.modules", "convv1", "conv1"],
        ),
        ("train.accumulate=0", 3, ["train.accumulate", "got 0"]),
        ("train={loss: 'cli_losses:squared', label_smoothing: 0.1}", 3, ["label_smoothing", "default loss"]),
    ],
)
def test_what_can_t_be_minimised_is_said_before_any_training(small_recipe, tmp_path, capsys, override, code, words):
    (tmp_path / "cli_losses.py").write_text(LOSSES)
    sys.modules.pop("cli_losses", None)
    got, line = fails(capsys, "run", str(small_recipe()), "-o", override)
    assert got == code, line
    for word in words:
        assert word in line
    assert not list(Path("out").glob(".work/*"))


def test_lora_without_its_package_is_said_before_any_training(small_recipe, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    code, line = fails(capsys, "run", str(small_recipe()), "-o", "recovery.method=lora")
    assert code == 9
    assert "pip install 'prunus[lora]'" in line
    assert not list(Path("out").glob(".work/*"))
