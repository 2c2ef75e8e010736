"""What a recipe's ``export`` leaves beside the bundle answers as the bundle does, and a model for transformers is cut for it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.core.errors import ModelError, PrunusError
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.recipes.shipping.export_section import cut_for_config
from prunus.pipeline import run
from prunus.report import load_record

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tokenizers
    import transformers

WORDS = ["[PAD]", "[UNK]", "[MASK]", "good", "bad", "a", "very", "film", "book", "not", "so", "it"]
DATA = {"data": {"source": "sklearn:digits"}}


def bert(n_outputs: int = 2):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=16, num_labels=2, hidden_size=24, num_hidden_layers=2,
        num_attention_heads=3, intermediate_size=32,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def texts():
    draw = np.random.default_rng(0)
    ids = torch.from_numpy(draw.integers(3, len(WORDS), (80, 6)))
    return torch.utils.data.TensorDataset(ids, torch.arange(80) % 2)


def words(folder: Path) -> Path:
    """Save a tokenizer of a few words, made here."""
    level = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(level)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return folder


def recipe(output, **more):
    tree = {
        "name": "texts",
        "data": {"source": f"{__name__}:texts", "split": {"validation": 0.2, "calibration": 0.1, "test": 0.2}},
        "model": {"builder": f"{__name__}:bert"},
        "train": {"epochs": 1},
        "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5},
        "recovery": {"method": "none"},
        "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 4, "runtime": "torch"}},
        "seeds": [0],
        "output": str(output),
        "keep_dense": False,
    }
    return make_recipe(tree | more)


def test_a_run_leaves_a_folder_that_a_pipeline_runs_and_its_cut_is_one_that_the_config_says(tmp_path):
    whole = words(tmp_path / "whole")
    run(recipe(tmp_path / "out", export={"to": ["hf"], "processor": str(whole)}))
    record = load_record(tmp_path / "out" / "record.json")
    assert record.recipe["strategy"]["expressible"] is True
    assert any("only what its config can say was cut" in note for note in record.notes)
    (facts,) = record.exports
    assert (facts.format, facts.file, facts.problem) == ("hf", "bundle.hf", "")
    assert facts.difference < 1e-5
    assert facts.n_samples == 16, "all test examples"
    (told,) = [note for note in record.notes if note.startswith("bundle.hf is for hf: ")]
    assert told.endswith("of the largest at most (16 real examples)")
    answers = transformers.pipeline("text-classification", str(tmp_path / "out" / "bundle.hf"))("a very good film")
    assert 0.5 <= answers[0]["score"] <= 1
    assert answers[0]["label"] in {"LABEL_0", "LABEL_1"}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"export": {"to": ["onnx", "hf"]}, "strategy": {"keep_fraction": 0.5}}, True),
        ({"export": {"to": ["onnx"]}, "strategy": {"keep_fraction": 0.5}}, False),
        ({"export": {"to": ["hf"]}, "strategy": {"keep_fraction": 0.5, "expressible": False}}, False),
        ({"strategy": {"keep_fraction": 0.5}}, False),
    ],
)
def test_only_a_folder_for_transformers_makes_expressible_the_default(tree, expected):
    assert make_recipe(DATA | tree).strategy.expressible is expected
    assert cut_for_config({"export": {"to": ["hf"]}}) == {"export": {"to": ["hf"]}}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"export": {"to": ["hf"]}, "model": {"builder": "mlp"}},
            r"export: hf is a folder for transformers, .* got a ",
        ),
        ({"export": {"to": ["onx"]}}, "unknown format 'onx'"),
        (
            {"export": {"to": ["onnx"], "processor": "whole"}},
            r"export.processor goes along with hf: got export.to onnx",
        ),
        (
            {"export": {"to": ["hf"], "processor": "nowhere"}},
            r"export.processor must be the folder of the model .* 'nowhere'",
        ),
    ],
)
def test_what_cannot_be_left_is_said_before_anything_is_trained(tmp_path, more, said):
    more = {"data": {"source": "sklearn:digits"}, **more} if "model" in more else more
    with pytest.raises(PrunusError, match=said):
        run(recipe(tmp_path / "out", **more))
    assert not list((tmp_path / "out" / ".work").glob("*train*"))


def test_a_file_that_cannot_be_written_fails_no_run_and_the_record_says_why(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ModelError("it has no operation DFT, of the layer 'features.2'")

    monkeypatch.setattr("prunus.pipeline.exported.files_of_run.export_file", refuse)
    run(recipe(tmp_path / "out", export={"to": ["torch"]}, strategy=None))
    record = load_record(tmp_path / "out" / "record.json")
    (facts,) = record.exports
    assert "there is no file for torch: it has no operation DFT, of the layer 'features.2'" in record.notes
    assert facts.problem == "it has no operation DFT, of the layer 'features.2'"
    assert facts.file == ""
