"""A bundle brings a model card and a bill of materials that independent readers accept, and that say all that the record says."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import replace

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from prunus.core.errors import BundleError, RecipeError
from prunus.core.recipes.card_section import Card
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline.flow.main_job import run
from prunus.pipeline.jobs.card_of_run import run_id
from prunus.report import load_record
from prunus.ship import bundle_sha256, load_bundle, read_manifest, save_bundle, verify_bundle, write_card
from prunus.ship.card import CardFacts, Change, Comparison, Cost, DataSaid, Measured, bill_of_materials, model_card
from recipe_samples import IRIS
from ship_stand_ins import build, made, options, pruned

__all__ = ["build", "made", "options", "pruned"]

SAID = {
    "description": "Tells three kinds of iris apart.",
    "version": "1.4",
    "license": "Apache-2.0",
    "data_license": "CC-BY-4.0",
    "authors": ["A. Botanist"],
    "contact": "a@example.org",
    "users": ["botanists"],
    "intended_use": ["sorting irises"],
    "out_of_scope": ["sorting roses"],
    "limitations": ["three species only"],
    "ethical": ["none for people"],
    "tags": ["flowers"],
    "language": ["en"],
}
ALL = CardFacts(
    said=Card.model_validate({**SAID, "authors": ("A. Botanist",)}),
    run_id="0" * 64,
    seeds=(0, 1),
    metrics=(Measured("pruned", "test", "accuracy", 0.91, 0.85, 0.96), Measured("dense", "test", "loss", 0.2, None, None)),
    comparisons=(Comparison("accuracy", 0.93, 0.91, -0.05, 0.01, "no measurable difference", 2),),
    contract={"metric": "accuracy", "max_drop": 0.01, "kept": True},
    costs={"dense": Cost(100, 100, 90, 400), "pruned": Cost(50, 40, 45, 200)},
    changes=(Change("0 -> 2", "channel", 8, 4),),
    data=DataSaid("flowers.csv", "a" * 64, {"train": 90, "test": 30}, "held out", True, 3),
    dense_fingerprint="b" * 64,
    notes=("something was noted",),
)  # fmt: skip


def validated(bill: dict) -> dict:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    return bill


def front_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def flat(value) -> str:
    return json.dumps(value, ensure_ascii=False)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A run with a contract and a card, and its record."""
    out = tmp_path_factory.mktemp("card") / "run"
    promise = {"target": {"params": 0.9}, "contract": {"max_drop": 0.5, "max_candidates": 2}}
    run(make_recipe({**IRIS, **promise, "strategy": {"criterion": "magnitude_l2"}, "card": SAID, "output": str(out)}))
    return out, load_record(out / "record.json")


def test_the_bill_of_a_run_passes_the_validator_of_the_standard(shipped):
    folder, _ = shipped
    bill = validated(json.loads((folder / "bundle/bom.cdx.json").read_text()))
    manifest = read_manifest(folder / "bundle")
    assert bill["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": manifest.files["model.safetensors"].sha256}
    ]


def test_the_card_of_a_run_is_read_by_the_hubs_library(shipped):
    hub = pytest.importorskip("huggingface_hub")
    folder, record = shipped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the library, about repositories
        card = hub.ModelCard((folder / "bundle/README.md").read_text(encoding="utf-8"))
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == (
        "apache-2.0",
        "tabular-classification",
        "prunus",
    )
    assert card.data.tags == sorted({"prunus", "pruned", "safetensors", "classification", "flowers"})
    own = {one.metric_type: one.metric_value for one in card.data.eval_results}
    row = next(row for row in record.quality if (row.seed, row.model, row.split) == (0, "pruned", "test"))
    assert own == {number.name: number.value for number in row.metrics if number.value is not None}
    assert {one.dataset_name for one in card.data.eval_results} == {"sklearn:iris"}


def test_card_and_bill_say_what_the_record_says(shipped):
    """By construction: each number, fingerprint, layer and note of the record that has its place there is found there."""
    folder, record = shipped
    card = re.sub(r"\\(.)", r"\1", (folder / "bundle/README.md").read_text(encoding="utf-8"))
    bill = flat(json.loads((folder / "bundle/bom.cdx.json").read_text(encoding="utf-8")))
    first = [row for row in record.quality if row.seed == record.seeds[0]]
    assert len(first) == 4
    for number in (number for row in first for number in row.metrics if number.value is not None):
        assert f"| {number.name} |" in card
        for value in (number.value, number.low, number.high):
            assert f"{value:.6g}" in card
            assert f"{value:.6g}" in bill
    for row in record.comparison:
        assert row.verdict in card
        assert row.verdict in bill
    for cost in record.cost.values():
        for value in (cost.parameters, cost.macs, cost.size_bytes):
            assert f"{value:,}" in card
            assert f'"{value}"' in bill
    for layer in record.layers:
        assert f"| {layer.name} | {layer.granularity} | {layer.before} | {layer.after} |" in card
    for note in record.notes:
        assert " ".join(note.split()) in card
    test = record.searches[0].result.test
    for value in (test.kept, test.bound, test.n, test.max_drop, test.metric):
        assert str(value) in card
        assert str(value) in bill
    assert record.fingerprints["data"] in card
    assert record.fingerprints["data"] in bill
    assert run_id(record) in card
    assert run_id(record) in bill
    assert record.fingerprints["model"] in bill
    for value in (text for texts in SAID.values() for text in ([texts] if isinstance(texts, str) else texts)):
        assert value in card
        if value not in (SAID["contact"], *SAID["language"]):
            assert value in bill
    for name, version in read_manifest(folder / "bundle").versions.items():
        assert version in card
        assert f"pkg:pypi/{name}@{version}" in bill


def test_the_proof_in_the_manifest_is_that_of_the_record(shipped):
    folder, record = shipped
    found = verify_bundle(folder / "bundle")
    assert found.sha256 == record.fingerprints["bundle"]
    assert found.proof.run_id == run_id(record)
    assert found.proof.contract["kept"] is True
    assert found.proof.contract["bound"] == record.searches[0].result.test.bound


def test_a_record_that_was_changed_has_another_run_id(shipped):
    _, record = shipped
    row = record.cost["pruned"].model_copy(update={"macs": 1})
    assert run_id(record.model_copy(update={"cost": {**record.cost, "pruned": row}})) != run_id(record)
    assert run_id(record.model_copy(update={"timing": {}})) == run_id(record)


def test_the_same_seed_gives_the_same_card_and_bill(shipped):
    """Also into a folder of another name: the bundle doesn't say where it was made."""
    folder, record = shipped
    other = folder.with_name("other")
    again = run(make_recipe({**record.recipe, "output": str(other)}))
    assert again.recipe["output"] != record.recipe["output"]
    for name in ("README.md", "bom.cdx.json", "manifest.json"):
        assert (folder / "bundle" / name).read_bytes() == (other / "bundle" / name).read_bytes()


def test_a_bundle_that_no_run_made_has_both_and_says_that_nothing_is_known(made):
    bill = validated(json.loads((made.folder / "bom.cdx.json").read_text()))
    assert "modelCard" in bill["metadata"]["component"]
    card = (made.folder / "README.md").read_text()
    assert card.count("wasn't made by a run") == 5
    assert front_of(card)["tags"] == ["classification", "pruned", "prunus", "safetensors"]


@pytest.mark.parametrize("without", [name for name in CardFacts.__dataclass_fields__ if name != "said"])
def test_whatever_is_not_known_both_are_valid(made, without):
    manifest = read_manifest(made.folder)
    facts = replace(ALL, **{without: getattr(CardFacts(), without)})
    validated(bill_of_materials(manifest, facts))
    card = model_card(manifest, facts)
    assert re.findall(r"(?m)^## (.*)$", card) == [
        "Intended use", "How to use it", "What it takes and gives", "Quality", "What was promised", "What was pruned",
        "Files for other runtimes", "Training data", "Limits", "How it was made",
    ]  # fmt: skip
    assert "None" not in card.replace("None is known", "")


def test_names_of_the_data_steer_neither_page_nor_terminal(build, pruned, options, tmp_path):
    names = ("# heading", "a | b", "[x](javascript:y)")
    hostile = "\n---\nlicense: mit\n---\n# x <script>"
    save_bundle(
        tmp_path / "b",
        pruned,
        **{**options, "class_names": names, "facts": {"name": hostile}},
        card=replace(ALL, data=replace(ALL.data, source=hostile), notes=(hostile, "\x1b[2J")),
    )
    card = (tmp_path / "b/README.md").read_text(encoding="utf-8")
    validated(json.loads((tmp_path / "b/bom.cdx.json").read_text()))
    assert front_of(card)["license"] == "apache-2.0"
    body = card.split("---\n", 2)[2]
    assert "<script>" not in body.replace("\\<script\\>", "")
    assert "\x1b" not in card
    assert r"\# heading" in body
    assert r"a \| b" in body
    assert r"\[x\](javascript:y)" in body
    assert len(re.findall(r"(?m)^# ", body)) == 1


def test_what_is_no_licence_tag_or_language_is_refused():
    for key, value in (
        ("license", "MIT or so"),
        ("tags", ["a b"]),
        ("language", ["English!"]),
        ("authors", [""]),
        ("users", ["\x1b[2J"]),
    ):
        with pytest.raises(RecipeError, match=f"card.{key}"):
            make_recipe({**IRIS, "card": {key: value}})


def test_a_card_that_is_written_anew_leaves_the_model_as_it_was(shipped, tmp_path):
    folder, _ = shipped
    shutil.copytree(folder / "bundle", tmp_path / "b")
    before = read_manifest(tmp_path / "b")
    told = CardFacts(run_id="0" * 64, other_files=("b.onnx, for # onnx",))
    sha256 = write_card(tmp_path / "b", told)
    after = read_manifest(tmp_path / "b")
    assert sha256 == after.sha256 != before.sha256
    assert bundle_sha256(tmp_path / "b") == sha256
    described = {"README.md", "bom.cdx.json"}
    assert after.files.keys() == before.files.keys()
    assert {name for name in after.files if after.files[name] != before.files[name]} == described
    assert after.proof.run_id == "0" * 64
    assert "* b.onnx, for \\# onnx" in (tmp_path / "b/README.md").read_text(encoding="utf-8")
    assert write_card(tmp_path / "b", told) == sha256
    load_bundle(tmp_path / "b", sha256=sha256)


def test_a_card_that_is_written_anew_vouches_for_no_byte_that_the_manifest_didnt(shipped, tmp_path, monkeypatch):
    folder, _ = shipped
    bundle = shutil.copytree(folder / "bundle", tmp_path / "b")
    weights = bundle / "model.safetensors"
    content = weights.read_bytes()
    copy = shutil.copy2

    def changed_while_it_is_copied(source, target, **more):
        copy(source, target, **more)
        if target.name == weights.name:
            target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with monkeypatch.context() as patch:
        patch.setattr("prunus.ship.save.shutil.copy2", changed_while_it_is_copied)
        with pytest.raises(BundleError, match=f"^{re.escape(str(weights))}"):
            write_card(bundle, CardFacts())
    load_bundle(bundle)
    held = weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(held)
    with pytest.raises(BundleError, match="plain files only"):
        write_card(bundle, CardFacts())


def test_a_file_that_isnt_the_bundles_is_named_and_stays(shipped, tmp_path):
    folder, _ = shipped
    bundle = shutil.copytree(folder / "bundle", tmp_path / "b")
    (bundle / "model.sig").write_text("signed")
    with pytest.raises(BundleError, match=r"got model\.sig; move it away, and sign the bundle afterwards"):
        write_card(bundle, CardFacts())
    assert (bundle / "model.sig").read_text() == "signed"
