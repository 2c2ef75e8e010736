"""A folder of class folders is a data set; every image that isn't one is named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from prunus.core.errors import DataError, MissingExtraError
from prunus.core.recipes.recipe import Data
from prunus.data import content_digests, open_inputs, open_source
from prunus.data.sources.image_folder import IMAGE_SUFFIXES, ImageFolder


def paint(path, value, *, size=(4, 6), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode in ("L", "I;16") else (*size, len(mode))
    kind = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray(np.full(shape, value, dtype=kind)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for number in range(3):
        paint(root / "dogs" / f"{number}.png", 10 + number)
        paint(root / "cats" / "indoor" / f"{number}.png", 100 + number)
    (root / ".hidden").mkdir()
    (root / "cats" / "notes.txt").write_text("no image")
    paint(root / "cats" / ".thumbnail.png", 0)
    return root


def opened(folder, **options):
    return open_source(Data(source=str(folder), **options))


def refused(folder, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        opened(folder, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", ["labels.csv", "features.parquet", "x.npy"])
def test_a_table_beside_class_folders_is_not_taken_for_the_data(folder, table):
    (folder / table).write_text("a,b,label\n1,2,0\n3,4,1\n")
    assert opened(folder, args={"mode": "L"}).ids == tuple(
        f"{where}/{number}.png" for where in ("cats/indoor", "dogs") for number in range(3)
    )
    refused(folder, rf"{table}\) and class folders of images, .*data\.target.*data\.args")


@pytest.mark.parametrize(
    "said",
    [{"target": "label"}, {"columns": ["a"]}, {"ignore": ["b"]}, {"kinds": {"a": "number"}}, {"missing": ["?"]},
     {"groups": "b"}, {"target": "label", "in_memory": True}],
)  # fmt: skip
def test_rows_are_read_where_the_recipe_says_what_only_rows_have(folder, said):
    (folder / "part0.csv").write_text("a,b,label\n1,2,0\n3,4,1\n")
    assert opened(folder, **said).ids == ("0", "1")


def test_rows_are_read_from_disk_where_images_lie_beside_them(folder, tmp_path):
    pq.write_table(pa.table({"a": [1.0, 2.0] * 20, "label": [0, 1] * 20}), folder / "part0.parquet")
    found = opened(folder, in_memory=False, cache=str(tmp_path / "cache"))
    assert len(found.ids) == 40


def test_one_picture_somewhere_below_makes_no_classes_of_rows(tmp_path):
    (tmp_path / "part0.csv").write_text("a,label\n1,0\n3,1\n")
    paint(tmp_path / "docs" / "img" / "logo.png", 0)
    assert opened(tmp_path).ids == ("0", "1")


def test_rows_beside_folders_without_a_shown_image_are_the_data(tmp_path):
    (tmp_path / "part.csv").write_text("a,label\n1,0\n3,1\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.txt").write_text("no image")
    paint(tmp_path / ".thumbnails" / "0.png", 0)
    paint(tmp_path / "plot.png", 0)
    assert opened(tmp_path).ids == ("0", "1")


def test_ids_are_paths_and_classes_are_folders(folder):
    source = opened(folder)
    assert source.ids == tuple(f"{where}/{number}.png" for where in ("cats/indoor", "dogs") for number in range(3))
    assert source.class_names == ("cats", "dogs")
    assert source.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.input_shape == (1, 4, 6)
    assert source.inputs(torch.tensor([3, 0])).flatten(1).unique(dim=1).tolist() == [[10.0], [100.0]]


def test_images_are_decoded_when_asked_for_and_once(folder):
    source = opened(folder)
    first = source.inputs(torch.tensor([0]))
    for path in folder.rglob("*.png"):
        path.unlink()
    assert torch.equal(source.inputs(torch.tensor([0, 0])), torch.cat([first, first]))
    with pytest.raises(DataError, match=r"cats/indoor/1\.png: this image can't be read: FileNotFoundError"):
        source.inputs(torch.tensor([1]))


def test_without_memory_to_spare_the_same_images_come_from_disk(folder):
    source = opened(folder)
    paths = [folder / name for name in source.ids]
    frugal = ImageFolder(
        folder,
        paths,
        name="pets",
        targets=source.targets,
        task="classification",
        class_names=source.class_names,
        size=(4, 6),
        mode="L",
        budget_bytes=0,
    )
    rows = torch.tensor([4, 1, 4])
    assert torch.equal(frugal.inputs(rows), source.inputs(rows))
    assert frugal.inputs(rows[:0]).shape == (0, 1, 4, 6)


def test_colours_are_channels_in_the_order_red_green_blue(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 2] = (1, 2, 3)
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.fromarray(pixels).save(tmp_path / label / "0.png")
    image = opened(tmp_path).inputs(torch.tensor([0]))[0]
    assert image.shape == (3, 2, 3)
    assert image[:, 0, 2].tolist() == [1, 2, 3]


def test_one_size_and_one_mode_unless_the_recipe_gives_them(folder):
    paint(folder / "dogs" / "9.png", 7, size=(8, 8))
    refused(folder, r"dogs/9\.png: expected \(4, 6\) .height, width. as in 0\.png, got \(8, 8\); set data\.args")
    assert opened(folder, args={"size": [5, 7]}).inputs(torch.tensor([6])).unique().tolist() == [7.0]
    paint(folder / "dogs" / "9.png", 7, mode="RGB")
    refused(folder, r"dogs/9\.png: expected mode L, got RGB; set data\.args: .mode")
    assert opened(folder, args={"mode": "L"}).input_shape == (1, 4, 6)
    assert opened(folder, args={"mode": "RGB"}).input_shape == (3, 4, 6)
    paint(folder / "dogs" / "9.png", 700, mode="I;16")
    refused(folder, "expected an image with 8 bits per channel, got mode I;16", args={"mode": "L"})


def test_a_damaged_image_is_named(folder):
    bad = folder / "dogs" / "1.png"
    bad.write_bytes(b"not an image")
    refused(folder, r"dogs/1\.png: this image can't be read: UnidentifiedImageError")
    whole = paint(bad, 3, size=(64, 64)).read_bytes()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (4, 6), dtype=np.uint8)).save(bad)
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) * 2 // 3])  # the header is whole, the pixels are not
    with pytest.raises(DataError, match=r"dogs/1\.png: this image can't be read"):
        content_digests(opened(folder))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"sise": [1, 2]}, "unknown argument 'sise' .*did you mean 'size'"),
        ({"size": 3}, "size must be .height, width. in whole pixels, got 3"),
        ({"size": [0, 4]}, "size must be"),
        ({"size": [2.5, 4]}, "size must be"),
        ({"mode": "CMYK"}, r"mode must be L .grey. or RGB, got 'CMYK'"),
    ],
)
def test_arguments_are_checked(folder, args, message):
    refused(folder, message, args=args)


def test_a_folder_that_is_no_folder_of_class_folders_is_refused(folder, tmp_path):
    refused(folder, "class folders are a classification", task="regression")
    paint(folder / "stray.png", 1)
    refused(folder, r"stray\.png: this image lies outside of every class folder")
    (folder / "stray.png").unlink()
    (folder / "birds").mkdir()
    refused(folder, "birds: expected images of the class 'birds', got none")
    (folder / "birds").rmdir()
    refused(folder / "dogs", "expected one sub-folder of images per class, got 3 images and no sub-folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "got 0 images and no sub-folder")
    (tmp_path / "empty" / "a").mkdir()
    refused(tmp_path / "empty", "empty set")
    paint(tmp_path / "empty" / "a" / "0.png", 1)
    refused(tmp_path / "empty", "two classes or more, got only 'a'")


def test_without_pillow_the_install_command_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prunus\[images\]'"):
        opened(folder)


def test_images_to_predict_come_in_the_models_form(folder):
    ids, values = open_inputs(str(folder), input_shape=(1, 4, 6), feature_names=())
    source = opened(folder)
    assert ids == source.ids
    assert torch.equal(values, source.inputs(torch.arange(6)))
    ids, values = open_inputs(str(folder / "dogs" / "1.png"), input_shape=(3, 8, 8), feature_names=())
    assert ids == ("1.png",)
    assert values.shape == (1, 3, 8, 8)
    assert values.unique().tolist() == [11.0]
    with pytest.raises(DataError, match=r"inputs of shape \(4,\), which images don't have"):
        open_inputs(str(folder), input_shape=(4,), feature_names=())
    (folder / "void").mkdir()
    with pytest.raises(DataError, match="empty set"):
        open_inputs(str(folder / "void"), input_shape=(1, 4, 6), feature_names=())


@pytest.mark.parametrize(("side", "n_images"), [(100_000, 1), (5_000, 6)])
def test_a_model_that_asks_for_huge_images_is_refused_before_one_is_resized(folder, monkeypatch, side, n_images):
    monkeypatch.setattr("prunus.data.open.read_image", lambda *arguments: pytest.fail("it was resized"))
    path = folder if n_images > 1 else folder / "dogs" / "1.png"
    with pytest.raises(DataError, match=rf"as images of {side} x {side} pixels: refused, .* PRUNUS_MAX_EXPANSION="):
        open_inputs(str(path), input_shape=(3, side, side), feature_names=())


def test_a_size_that_a_recipe_asks_for_is_refused_where_it_fills_the_memory(folder):
    with pytest.raises(DataError, match=r"refused, it would become 10000000000 bytes"):
        opened(folder, args={"size": [100_000, 100_000]}).inputs(torch.arange(1))


def test_thumbnails_may_become_pictures(folder):
    _, values = open_inputs(str(folder), input_shape=(3, 224, 224), feature_names=())
    assert values.shape[1:] == (3, 224, 224)


def test_a_file_is_decoded_as_what_its_ending_may_mean_and_nothing_else(folder):
    """An EPS starts Ghostscript; no decoder but those of the endings may even look at a file."""
    path = folder / "cats" / "indoor" / "0.png"
    Image.new("RGB", (6, 4)).save(path, format="EPS")
    refused(folder, r"0\.png: this image can't be read")
    with pytest.raises(DataError, match="can't be read"):
        open_inputs(str(path), input_shape=(1, 4, 6), feature_names=())
    for other in ("PDF", "PCX", "TGA", "ICO"):
        Image.new("RGB", (6, 4)).save(path, format=other)
        refused(folder, "can't be read")


@pytest.mark.parametrize("ending", IMAGE_SUFFIXES)
def test_every_ending_that_is_looked_for_can_be_read(tmp_path, ending):
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.new("L", (6, 4), 7).save(tmp_path / "set" / label / f"x{ending}")
    read = opened(tmp_path / "set", args={"mode": "L"}).inputs(torch.tensor([0, 1]))
    assert read.shape == (2, 1, 4, 6)
