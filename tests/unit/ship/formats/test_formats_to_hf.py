"""A bundle of a model of transformers leaves as a folder that ``from_pretrained`` loads and ``pipeline`` runs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus import ModelOptimizer, load_bundle
from prunus.core.errors import BundleError, ModelError, OutputError
from prunus.core.files.sealed import tree_sha256
from prunus.pipeline import export_bundle
from prunus.ship import export_file
from prunus.tasks import Classification

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tokenizers
    import transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "a", "very", "film", "book", "not", "so"]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
CLASSES = ("bad", "good")


def tokenizer(folder: Path) -> Path:
    """Save a tokenizer of a few words, as it would lie in a model's own folder; among them files that must not go along."""
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    for name in ("pytorch_model.bin", "modeling.py", "README.json", ".secret.json", "model.safetensors.index.json"):
        (folder / name).write_text("{}")
    (folder / "config.json").write_text('{"model_type": "another"}')
    return folder


def bert(**more):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=16, num_labels=2, **{**SIZES, **more}
    )
    return transformers.BertForSequenceClassification(config).eval()


def saved(folder: Path, model=None, **strategy) -> Path:
    draw = np.random.default_rng(0)
    x, y = draw.integers(5, len(WORDS), (90, 6)), np.arange(90) % 2
    strategy = {"criterion": "magnitude_l2", "keep_fraction": 0.5, "expressible": True, **strategy}
    options = {"trained": True, "recovery": {"method": "none"}, "seeds": [0]}
    task = Classification(n_classes=2, class_names=CLASSES)
    optimizer = ModelOptimizer(model or bert(), ({"input_ids": x}, y), task=task, strategy=strategy, **options)
    optimizer.prune().save(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("hf") / "bundle")


def test_the_folder_loads_and_a_pipeline_answers_with_the_bundles_classes(bundle, tmp_path):
    beside = tokenizer(tmp_path / "whole")
    facts = export_bundle(bundle, "hf", out=tmp_path / "small", beside=beside)
    assert facts["format"] == "hf"
    assert facts["difference"] < 1e-6
    assert facts["size_bytes"] == sum(file.stat().st_size for file in (tmp_path / "small").iterdir())
    run = transformers.pipeline("text-classification", str(tmp_path / "small"))
    ids = run.tokenizer("a very good film so", return_tensors="pt")["input_ids"]
    answer = load_bundle(bundle).predict({"input_ids": torch.cat([ids, ids[:, :1]], dim=1)})
    (found,) = run("a very good film so [PAD]", top_k=1)
    assert found["label"] in CLASSES
    whole = load_bundle(bundle).predict(
        {"input_ids": run.tokenizer("a very good film so a", return_tensors="pt")["input_ids"]}
    )
    (same,) = run("a very good film so a", top_k=1)
    assert same["score"] == pytest.approx(float(whole.softmax(dim=1).max()), abs=1e-6)
    assert same["label"] == CLASSES[int(whole.argmax())]
    assert answer.shape == (1, 2)


def test_files_of_the_tokenizer_go_along_and_nothing_else(bundle, tmp_path):
    export_bundle(bundle, "hf", out=tmp_path / "small", beside=tokenizer(tmp_path / "whole"))
    names = {file.name for file in (tmp_path / "small").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (config["model_type"], config["intermediate_size"], config["hidden_size"]) == ("bert", 16, 16)


def test_without_a_processor_the_note_says_what_is_missing(bundle, tmp_path):
    made = export_file(load_bundle(bundle), "hf", tmp_path / "small")
    assert "give --processor FOLDER" in made.note
    assert "one number holds for all layers" in made.note
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "small").eval()
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, load_bundle(bundle).predict({"input_ids": ids}))


def test_a_generator_keeps_its_defaults(tmp_path):
    torch.manual_seed(0)
    options = {**SIZES, "vocab_size": len(WORDS), "num_key_value_heads": 3, "max_position_embeddings": 32}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**options, use_cache=False)).eval()
    model.generation_config.max_new_tokens = 3
    ids = torch.randint(5, len(WORDS), (40, 8))
    optimizer = ModelOptimizer(
        model, {"input_ids": ids}, task="language", strategy={"keep_fraction": 0.5, "expressible": True}, trained=True,
        recovery={"method": "none"}, seeds=[0],
    )  # fmt: skip
    optimizer.prune().save(tmp_path / "bundle")
    export_bundle(tmp_path / "bundle", "hf", out=tmp_path / "small", beside=tokenizer(tmp_path / "whole"))
    run = transformers.pipeline("text-generation", str(tmp_path / "small"))
    assert run.model.generation_config.max_new_tokens == 3
    assert run("a very good", do_sample=False)[0]["generated_text"].startswith("a very good")


def test_a_cut_that_no_config_says_is_refused_and_the_layers_that_differ_are_named(tmp_path):
    uneven = {"expressible": False, "granularity": ["mlp"], "exclude": ["*.0.intermediate.dense"]}
    folder = saved(tmp_path / "bundle", **uneven)
    with pytest.raises(
        ModelError, match=r"encoder\.layer\.\*\.intermediate\.dense\.bias is .* and .*expressible: true.*vLLM"
    ):
        export_bundle(folder, "hf", out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_model_of_ones_own_is_no_folder_of_transformers(tmp_path):
    x = torch.randn(80, 4)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    ModelOptimizer(network, (x, (x[:, 0] > 0).long()), trained=True).save(tmp_path / "bundle")
    with pytest.raises(ModelError, match="knows no class of transformers"):
        export_bundle(tmp_path / "bundle", "hf")


@pytest.mark.parametrize("there", ["file", "other files", "folders", "link"])
def test_what_isnt_an_export_is_never_replaced(bundle, tmp_path, there):
    out = tmp_path / "small"
    if there == "file":
        out.write_text("mine")
    elif there == "link":
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "config.json").write_text("{}")
        out.symlink_to(tmp_path / "real")
    else:
        out.mkdir()
        (out / ("thesis.txt" if there == "other files" else "config.json")).write_text("mine")
        if there == "folders":
            (out / "photos").mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"can't write .*choose another place"):
        export_file(load_bundle(bundle), "hf", out)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_an_earlier_export_is_replaced(bundle, tmp_path):
    for _ in range(2):
        export_file(load_bundle(bundle), "hf", tmp_path / "small")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_a_folder_without_a_processor_or_with_a_broken_one_is_refused(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    for name, said in (("empty", "no file of a tokenizer"), ("broken", "don't load"), ("none", "which is none")):
        with pytest.raises(ModelError, match=said):
            export_file(load_bundle(bundle), "hf", tmp_path / "small", beside=tmp_path / name)
    assert not (tmp_path / "small").exists()


def test_a_processor_beside_a_file_is_refused(bundle, tmp_path):
    with pytest.raises(ModelError, match="no room for a processor"):
        export_bundle(bundle, "onnx", out=tmp_path / "a.onnx", beside=tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_name": "os.system"}, "class_name"),
        ({"class_name": "AutoModel"}, "has no model 'AutoModel'"),
        ({"config": {"auto_map": {"AutoModel": "evil--code.Model"}}}, "auto_map"),
        ({"config": {"attn_implementation": "someone/kernel"}}, "attn_implementation"),
        ({"config": {"vision": {"quantization_config": {}}}}, "quantization_config"),
        ({"config": {"vocab_size": 3}}, "can't be built"),
    ],
)
def test_a_manifest_from_elsewhere_names_no_code(bundle, tmp_path, change, said):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tree = json.loads((folder / "manifest.json").read_text())
    tree["pretrained"] |= change
    tree["sha256"] = tree_sha256(tree)
    (folder / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises((BundleError, ModelError), match=said):
        export_bundle(folder, "hf", out=tmp_path / "small")
    assert not (tmp_path / "small").exists()
