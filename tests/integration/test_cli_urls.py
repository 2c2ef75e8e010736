"""Do commands take URLs where they take paths, and say in one line what is wrong with one?"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import torch

import prunus
from object_store import ENVIRONMENT
from prunus.cli.app import invoke
from prunus.core.files.urls import store as asked
from prunus.core.recipes.recipe import Model
from prunus.models import build
from prunus.ship import save_bundle

NAMES = tuple("uvwxyz")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asked, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle, and rows to score."""
    where = tmp_path_factory.mktemp("made")
    config = Model(builder="mlp", args={"width": 8})
    save_bundle(
        where / "b",
        build(config, input_shape=(6,), n_outputs=3, seed=0),
        built_by=config,
        input_shape=(6,),
        n_outputs=3,
        task="classification",
        class_names=("a", "b", "c"),
        feature_names=NAMES,
    )
    random = np.random.default_rng(0)
    columns = {name: random.random(300) for name in NAMES} | {"label": random.choice(["a", "b", "c"], 300)}
    (where / "in").mkdir()
    pq.write_table(pa.table(columns), where / "in" / "part-0.parquet", row_group_size=100)
    return where


@pytest.fixture
def folder(made, tmp_path, store, bucket, monkeypatch):
    """Both in the current folder, and in a bucket."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    store.put_folder(bucket, "b", made / "b")
    store.put_folder(bucket, "in", made / "in")
    return tmp_path


def said(capsys, *arguments, code=0):
    found = invoke([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert found == code, err
    return out if code == 0 else err


def test_a_bundle_at_a_url_is_the_one_that_was_written(folder, store, bucket):
    here, there = prunus.load_bundle(folder / "b"), prunus.load_bundle(f"s3://{bucket}/b")
    inputs = torch.rand(5, 6)
    assert there.sha256 == here.sha256
    assert torch.equal(there.predict(inputs), here.predict(inputs))
    store.put(bucket, "b/model.safetensors", store.get(bucket, "b/model.safetensors")[:-1] + b"x")
    with pytest.raises(
        prunus.BundleError if hasattr(prunus, "BundleError") else Exception, match=r"s3://.*was changed"
    ):
        prunus.load_bundle(f"s3://{bucket}/b")


def test_verify_predict_and_evaluate_say_the_same_of_it_and_leave_nothing_behind(
    folder, store, bucket, capsys, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    (folder / "tmp").mkdir()
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    url, data = f"s3://{bucket}/b", f"s3://{bucket}/in/part-0.parquet"
    for command, more in (
        ("verify", ()),
        ("predict", ("in/part-0.parquet",)),
        ("evaluate", ("--source", "in/part-0.parquet", "--target", "label")),
    ):
        here = json.loads(said(capsys, command, "b", *more, "--json"))
        there = json.loads(
            said(capsys, command, url, *(data if one == "in/part-0.parquet" else one for one in more), "--json")
        )
        if command != "predict":
            assert there.pop("bundle") == url
            here.pop("bundle")
        assert there == here
    assert not list((folder / "tmp").iterdir())


def test_shards_are_scored_by_a_bundle_at_a_url_and_their_scores_choose_rows(folder, store, bucket, capsys):
    line = ("--target", "label", "--scores", "loss", "--workers", "2")
    said(capsys, "score-shards", "b", "in", "--output", "out", *line)
    said(
        capsys,
        "score-shards",
        f"s3://{bucket}/b",
        f"s3://{bucket}/in/*.parquet",
        "--output",
        f"s3://{bucket}/out",
        *line,
    )
    assert store.get(bucket, "out/part-0.parquet") == (folder / "out" / "part-0.parquet").read_bytes()
    kept = [
        prunus.kept_rows(given, scores, target="label", where=lambda scores: scores["loss"] < 1.1)
        for given, scores in (("in", "out"), (f"s3://{bucket}/in", f"s3://{bucket}/out"), ("in", f"s3://{bucket}/out"))
    ]
    assert len({one.kept.sha256 for one in kept}) == 1
    assert 0 < len(kept[0]) < 300


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("verify", "s3://BUCKET/none"), 6, "no bundle at s3://BUCKET/none"),
        (("verify", "s3://no-such-bucket/b"), 6, "no bundle at s3://no-such-bucket/b"),
        (("sign", "s3://BUCKET/b", "--private-key", "k.pem"), 3, "sign it on this machine"),
        (("export", "s3://BUCKET/b", "--to", "onnx"), 3, "say where the file goes: --out FILE"),
        (("score-shards", "b", "s3://BUCKET/none", "--output", "o"), 4, "there is no such object or folder"),
        (("score-shards", "b", "s3://no-such-bucket/x", "--output", "o"), 4, "there is no bucket 'no-such-bucket'"),
        (("score-shards", "b", "in", "--output", "s3://no-such-bucket/x"), 7, "there is no bucket 'no-such-bucket'"),
        (("score-shards", "b", "file:///etc/passwd", "--output", "o"), 3, "file:// is never read as a URL"),
        (("run", "s3://BUCKET/recipe.yaml"), 3, "a recipe can't be a URL"),
        (("run", "r.yaml", "-o", "output=s3://BUCKET/o"), 3, "--copy-to URL"),
        (("run", "r.yaml", "-o", "data.cache=s3://BUCKET/c"), 3, "data.cache: it is mapped into memory"),
        (
            ("run", "r.yaml", "-o", "export.to=[hf]", "-o", "export.processor=s3://BUCKET/p"),
            3,
            "export.processor can't be a URL",
        ),
        (("export", "b", "--to", "onnx", "--out", "s3://BUCKET/b.onnx"), 3, "--out can't be a URL"),
        (("export", "b", "--to", "hf", "--out", "o", "--processor", "s3://BUCKET/p"), 3, "--processor can't be a URL"),
        (("predict", "b", "in/part-0.parquet", "--output", "s3://BUCKET/p.csv"), 3, "--output can't be a URL"),
        (("bench", "b", "--out", "s3://BUCKET/b.json"), 3, "--out can't be a URL"),
        (("sizes", "b", "--size", "0.5", "--out", "s3://BUCKET/b"), 3, "--out can't be a URL"),
        (("import", "b/model.safetensors", "--out", "s3://BUCKET/m.safetensors"), 3, "--out can't be a URL"),
        (("evaluate", "b", "--out", "s3://BUCKET/o"), 3, "--out can't be a URL"),
        (("graph", "mlp", "--input", "2x6", "--svg", "s3://BUCKET/g.svg"), 3, "--svg can't be a URL"),
        (("shards", "b", "s3://BUCKET/o", "--keep-fraction", "0.5"), 3, "OUT can't be a URL"),
        (("serve", "b", "--cache", "s3://BUCKET/o"), 3, "--cache can't be a URL"),
        (("run", "r.yaml", "--copy-to", "copies/a"), 3, "expected a URL like s3://bucket/runs/a"),
        (("run", "r.yaml", "-o", "model.weights=s3://BUCKET/w"), 3, "model.weights can't be a URL"),
        (("run", "r.yaml", "-o", "data.source=s3://BUCKET/none.csv"), 4, "there is no such object or folder"),
        (("run", "r.yaml", "-o", "data.source=s3://me:hunter2@BUCKET/a.csv"), 3, "expected no user or key"),
        (("run", "r.yaml", "-o", "data.source=s3://BUCKET/a.csv?sig=hunter2"), 3, "none of ? and #"),
        (("run", "r.yaml", "-o", "data.test=simplecache::s3://BUCKET/a.csv"), 3, "chain"),
    ],
)
def test_what_is_wrong_with_a_url_is_one_line_and_an_exit_code(
    folder, bucket, capsys, small_recipe, arguments, code, words
):
    small_recipe()
    err = said(capsys, *(str(one).replace("BUCKET", bucket) for one in arguments), code=code)
    assert words.replace("BUCKET", bucket) in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "hunter2" not in err
    assert not Path("s3:").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("score-shards", "b", "s3://BUCKET/in", "--output", "o"), 4),
        (("score-shards", "b", "in", "--output", "s3://BUCKET/o"), 7),
        (("score-shards", "s3://BUCKET/b", "in", "--output", "o"), 6),
        (("duplicates-shards", "s3://BUCKET/in", "--output", "o"), 4),
        (("evaluate", "b", "--source", "s3://BUCKET/in/part-0.parquet", "--target", "label"), 4),
        (("predict", "b", "s3://BUCKET/in/part-0.parquet"), 4),
        (("run", "r.yaml", "-o", "data.source=s3://BUCKET/in/part-0.parquet", "-o", "data.target=label"), 4),
        (("run", "r.yaml", "--copy-to", "s3://BUCKET/copy"), 7),
        (("verify", "s3://BUCKET/b"), 6),
        (("evaluate", "s3://BUCKET/b"), 6),
        (("export", "s3://BUCKET/b", "--to", "onnx", "--out", "b.onnx"), 6),
    ],
)
def test_without_credentials_each_command_says_how_they_are_given_before_it_does_anything(
    folder, store, bucket, capsys, small_recipe, monkeypatch, arguments, code
):
    small_recipe()
    before, keys = sorted(path.name for path in folder.iterdir()), store.keys(bucket)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(asked, "_connections", {})
    s3fs.S3FileSystem.clear_instance_cache()
    err = said(capsys, *(str(one).replace("BUCKET", bucket) for one in arguments), code=code)
    s3fs.S3FileSystem.clear_instance_cache()
    assert "no credentials were found; set AWS_ACCESS_KEY_ID" in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert store.keys(bucket) == keys
    assert not {path.name for path in folder.iterdir()} - {*before, "o", "out"}
    assert not list(folder.glob("o*/[!.]*"))  # nothing but hidden marks, if a folder was made at all


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("score-shards", "b", "s3://BUCKET/in", "--output", "o"), 10, "in/part-0.parquet"),
        (("duplicates-shards", "s3://BUCKET/in", "--columns", "u,v", "--output", "o"), 10, "in/part-0.parquet"),
        (("score-shards", "b", "in", "--output", "s3://BUCKET/o", "--resume"), 7, "o/.prunus-scores.json"),
        (("run", "r.yaml", "--copy-to", "s3://BUCKET/o"), 7, "o/.prunus-copied.json"),
        (("evaluate", "b", "--source", "s3://BUCKET/in/part-0.parquet", "--target", "label"), 4, "in/part-0.parquet"),
        (("predict", "b", "s3://BUCKET/in/part-0.parquet"), 4, "in/part-0.parquet"),
        (("verify", "s3://BUCKET/b"), 6, "b/README.md"),
        (("score-shards", "s3://BUCKET/b", "in", "--output", "o"), 6, "b/manifest.json"),
    ],
)
def test_a_bucket_that_lists_but_does_not_read_is_one_line_of_each_command(
    folder, store, bucket, capsys, small_recipe, arguments, code, what
):
    small_recipe()
    said(capsys, "score-shards", "b", "in", "--output", f"s3://{bucket}/o")
    store.put(bucket, "o/.prunus-copied.json", b"{}")
    keys = store.keys(bucket)
    with store.faults(lambda method, path: "deny" if method == "GET" and path.count("/") > 1 else None):
        err = said(capsys, *(str(one).replace("BUCKET", bucket) for one in arguments), code=code)
    (line,) = [line for line in err.splitlines() if "access denied" in line]
    assert f"s3://{bucket}/{what}: access denied, these credentials may not read it" in line
    assert store.keys(bucket) == keys


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("score-shards", "b", "in", "--output", "s3://BUCKET/o"), 7),
        (("run", "r.yaml", "--copy-to", "s3://BUCKET/copy"), 7),
    ],
)
def test_a_bucket_that_does_not_take_what_is_written_is_one_line(
    folder, store, bucket, capsys, small_recipe, arguments, code
):
    small_recipe()
    keys = store.keys(bucket)
    with store.faults(lambda method, path: "deny" if method in ("PUT", "POST") else None):
        err = said(capsys, *(str(one).replace("BUCKET", bucket) for one in arguments), code=code)
    assert "access denied, these credentials may not write it" in err
    assert err.count("error: ") == 1
    assert store.keys(bucket) == keys


def test_a_run_reads_from_urls_and_is_copied_to_one_whole(folder, store, bucket, capsys, small_recipe):
    random = np.random.default_rng(1)
    columns = {name: random.random(400) for name in NAMES}
    columns["label"] = np.where(columns["u"] + columns["v"] > 1, "yes", "no")
    for number in range(2):
        part = {name: values[200 * number : 200 * number + 200] for name, values in columns.items()}
        pq.write_table(pa.table(part), folder / "x.parquet")
        store.put(bucket, f"train/part-{number}.parquet", (folder / "x.parquet").read_bytes())
    recipe = small_recipe(
        data={"source": f"s3://{bucket}/train/*.parquet"},
        model={"builder": "mlp", "args": {"width": 8}},
        train={"epochs": 1},
        recovery={"epochs": 1},
    )
    said(capsys, "run", recipe, "--copy-to", f"s3://{bucket}/runs/a", "--quiet")
    sent = {key.removeprefix("runs/a/") for key in store.keys(bucket) if key.startswith("runs/a/")}
    assert {"record.json", "report.html", "bundle/manifest.json", "dense/manifest.json"} <= sent
    assert not [name for name in sent if name.startswith(".") and name != ".prunus-copied.json"]
    found = json.loads(said(capsys, "verify", f"s3://{bucket}/runs/a", "--json"))
    assert found["sha256"] == prunus.load_bundle(folder / "out" / "bundle").sha256
    told = (folder / "out" / "record.json").read_text() + (folder / "out" / "log.jsonl").read_text()
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in told
