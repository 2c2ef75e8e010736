"""Every mistake answers with one line, the documented exit code, and nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prunus.cli.app import invoke
from tests_support import digits_state

CSV = "a,b,label\n1,2,x\n3,4,y\n" + "".join(f"{i},{i % 7},{'x' if i % 2 else 'y'}\n" for i in range(60))


@pytest.fixture
def failing(tmp_path: Path, small_recipe, monkeypatch, capsys):
    """Return a function that runs a recipe in this process, and returns its exit code and its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*extra: str, **sections: object) -> tuple[int, str]:
        path = small_recipe(**sections)
        code = invoke(["run", str(path), "--quiet", *extra])
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith(("error:", "internal error:"))]
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        assert not (tmp_path / "out" / "bundle").exists()
        assert not (tmp_path / "out" / "record.json").exists()
        assert not list(tmp_path.rglob("*.part"))
        return code, lines[0]

    return run


def table(**options: object) -> dict[str, object]:
    return {"data": {"source": "t.csv", **options}, "model": {"builder": "mlp", "args": {"width": 8}}}


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("stratgy.x=1", 3, ["stratgy", "strategy"]),
        ("strategy.keep_fraction=0", 3, ["keep_fraction", "got 0"]),
        ("strategy.keep_fraction=1.5", 3, ["keep_fraction", "got 1.5"]),
        ("strategy.keep_fraction=.nan", 3, ["keep_fraction", "got nan"]),
        ("strategy.keep_fraction=lots", 3, ["keep_fraction", "got 'lots'"]),
        ("strategy.criterion=magnitud_l2", 3, ["magnitud_l2", "magnitude_l2"]),
        ("evaluation.metrics=[acuracy]", 3, ["acuracy", "accuracy"]),
        ("model.builder=cnm", 3, ["cnm", "cnn"]),
        ("model.builder=nowhere:build", 5, ["nowhere"]),
        ("model.args.widht=8", 5, ["widht", "width"]),
        ("data.source=sklearn:digit", 4, ["digit"]),
        ("data.source=missing.csv", 4, ["missing.csv"]),
        ("data.source=what.xyz", 4, ["what.xyz"]),
        ("runtime.device=gpu9", 3, ["runtime.device", "gpu9"]),
        ("features={}", 3, ["features", "(1, 8, 8)"]),
    ],
)
def test_a_wrong_key_or_name_is_named(failing, override, code, words):
    got, line = failing("-o", override)
    assert got == code
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("strategy", "code", "words"),
    [
        ({"granularity": "2:4", "keep_fraction": 0.5}, 3, ["2:4", "contradicts keep_fraction"]),
        ({"granularity": "2:4", "cutoff": 0.1}, 3, ["2:4", "contradicts cutoff"]),
        ({"granularity": "2:4", "allocation": "global"}, 3, ["2:4", "contradicts allocation global"]),
        ({"granularity": "2:4", "schedule": {"kind": "linear", "rounds": 2}}, 3, ["contradicts schedule linear"]),
        ({"granularity": "2:4", "layers": [{"match": "conv2", "keep_fraction": 0.7}]}, 3, ["contradicts layers.keep"]),
        ({"granularity": "2:4", "round_to": 8}, 3, ["contradicts round_to"]),
        ({"granularity": ["2:4", "channel"]}, 3, ["['2:4', 'channel']", "last"]),
        ({"granularity": ["2:4", "4x1"]}, 3, ["['2:4', '4x1']", "one of them"]),
        ({"granularity": ["weight", "2:4"]}, 3, ["['weight', '2:4']", "one of them"]),
        ({"granularity": ["channel", "channel"]}, 3, ["given once"]),
        ({"granularity": "4:2"}, 3, ["N must be less than M", "got '4:2'"]),
        ({"granularity": "input_feature"}, 3, ["section features", "got 'input_feature'"]),
        ({"granularity": "chanels"}, 3, ["'N:M'", "'RxC'", "got 'chanels'"]),
        ({"granularity": "2:4"}, 5, ["conv1.weight", "4 divides", "got 1", "strategy.exclude"]),
        ({"granularity": ["channel", "2:4"]}, 5, ["conv1.weight", "4 divides", "got 1"]),
        ({"granularity": "16x1", "exclude": ["head"]}, 5, ["conv1.weight", "16 divides", "got 8"]),
        ({"criterion": "bn_scale", "granularity": "2:4"}, 3, ["bn_scale", "doesn't judge weights"]),
        ({"schedule": {"rewind_to": 3}}, 3, ["rewind_to", "train.epochs = 2", "got 3"]),
        ({"schedule": {"rewind_to": 0, "during": "train"}}, 3, ["rewind_to", "during: train"]),
        ({"schedule": {"kind": "cubic", "rounds": 5, "during": "train"}}, 3, ["5 cuts", "epochs 2", "at least 6"]),
        ({"criterion": "l1", "schedule": {"during": "train"}}, 3, ["l1", "contradicts schedule.during"]),
        ({"allocation": "sensitivity", "sensitivity_steps": []}, 3, ["sensitivity_steps"]),
    ],
)
def test_a_strategy_that_contradicts_itself_or_the_model_is_told_before_any_training(failing, strategy, code, words):
    got, line = failing(strategy={"criterion": "magnitude_l2", **strategy})
    assert got == code, line
    for word in words:
        assert word in line


def test_going_back_needs_a_training_and_a_training_anew(failing, tmp_path):
    rewinding = {"schedule": {"rewind_to": 1}}
    code, line = failing(strategy=rewinding, recovery={"method": "none"})
    assert (code, "recovery must train anew" in line) == (3, True)
    save_file(digits_state(), tmp_path / "w.safetensors")
    model = {"builder": "cnn", "args": {"width": 8}, "weights": "w.safetensors"}
    for schedule in ({"rewind_to": 1}, {"during": "train"}):
        code, line = failing(strategy={"schedule": schedule}, model=model)
        assert (code, "model.weights skips it" in line) == (3, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["t.csv"]),
        ("a,b,label\n", ["t.csv", "empty"]),
        (CSV.replace("3,4,y", "three,4,y"), ["'a'", "row", "'three'"]),
        (CSV.replace("3,4,y", "inf,4,y"), ["a", "row"]),
        (CSV.replace(",y", ","), ["label", "two classes"]),
        (CSV.replace(",y", ",x"), ["two classes"]),
        (CSV.replace("3,4,y", "3,4,y,5"), ["t.csv"]),
    ],
)
def test_a_bad_table_names_the_file_the_column_or_the_row(failing, tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    code, line = failing(**table(target="label"))
    assert code == 4
    for word in words:
        assert word in line


def test_a_missing_target_column_suggests_the_near_one(failing, tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    code, line = failing(**table(target="lable"))
    assert code == 4
    assert "lable" in line
    assert "label" in line


@pytest.mark.parametrize("name", ["t.parquet", "t.npz", "t.csv"])
def test_a_corrupt_file_is_named(failing, tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(256)) * 3)
    code, line = failing(data={"source": name, "target": "y"})
    assert code == 4
    assert name in line


def test_an_object_array_is_refused_and_its_pickle_never_runs(failing, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "t.npz", x=np.array([Bomb()], dtype=object), y=np.array([0]))
    code, line = failing(data={"source": "t.npz"})
    assert code == 4
    assert "object" in line
    assert not (tmp_path / "ran").exists()


def test_a_corrupt_image_is_named(failing, tmp_path):
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    (tmp_path / "pictures" / "cat" / "7.png").write_bytes(b"not an image")
    code, line = failing(data={"source": "pictures"})
    assert code == 4
    assert "cat/7.png" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s | {"extra.weight": torch.zeros(1)}, ["extra.weight"]),
        (lambda s: dict(list(s.items())[1:]), ["missing"]),
        (lambda s: {k: v[..., :1].contiguous() if v.dim() > 1 else v for k, v in s.items()}, ["shape"]),
        (
            lambda s: {k: torch.full_like(v, float("nan")) if v.is_floating_point() else v for k, v in s.items()},
            ["NaN"],
        ),
        (lambda s: {k: v.long() for k, v in s.items()}, ["int64"]),
    ],
)
def test_weights_that_do_not_fit_name_the_tensor(failing, tmp_path, change, words):
    save_file(change(digits_state()), tmp_path / "w.safetensors")
    code, line = failing("-o", "model.weights=w.safetensors")
    assert code == 5
    for word in words:
        assert word in line


def test_truncated_weights_are_named(failing, tmp_path):
    save_file(digits_state(), tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[: len(data) // 2])
    code, line = failing("-o", "model.weights=w.safetensors")
    assert code == 5
    assert "w.safetensors" in line


def test_a_pickle_that_would_run_code_is_refused_and_never_runs(failing, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"w": Bomb()}, tmp_path / "w.pt")
    code, line = failing("-o", "model.weights=w.pt")
    assert code == 5
    assert "w.pt" in line
    assert not (tmp_path / "ran").exists()


def test_a_model_whose_outputs_do_not_fit_the_labels_is_told_before_any_training(failing, tmp_path, monkeypatch):
    (tmp_path / "narrow_model.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, line = failing(model={"builder": "narrow_model:build"})
    assert code == 5
    assert "3" in line
    assert "10" in line


def test_a_folder_with_other_files_is_left_alone(failing, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    code, line = failing()
    assert code == 7
    assert "no run of prunus" in line
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_a_full_disk_is_one_line_and_resume_finishes_the_job(failing, tmp_path, monkeypatch, small_recipe):
    import errno

    from prunus.ship import save

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(save, "atomic_folder", full)
        code, line = failing()
        assert code == 7
        assert "space" in line
    assert invoke(["run", str(small_recipe()), "--quiet", "--resume"]) == 0
    assert (tmp_path / "out" / "record.json").exists()


def test_a_missing_recipe_and_wrong_usage_have_their_own_codes(tmp_path, capsys):
    assert invoke(["run", str(tmp_path / "none.yaml")]) == 3
    assert "no recipe at" in capsys.readouterr().err
    assert invoke(["run"]) == 2
    assert invoke(["runn"]) == 2
