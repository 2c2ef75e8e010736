"""Masks: every figure against torchmetrics over the counted pixels, and what doesn't fit in one line."""

import pytest
import torch
from torchmetrics.functional import classification
from torchmetrics.functional.segmentation import dice_score

from prunus.core.errors import DataError, ModelError, ShapeError
from prunus.tasks import Tally
from prunus.tasks.segmentation import Segmentation
from task_samples import batch_of, value_of

CLASSES = 4


def drawn(seed, n=3, size=(6, 7), ignored=255):
    draw = torch.Generator().manual_seed(seed)
    masks = torch.randint(CLASSES, (n, *size), generator=draw)
    scores = torch.randn(n, CLASSES, *size, generator=draw) + torch.nn.functional.one_hot(masks, CLASSES).movedim(-1, 1)
    return scores, masks.masked_fill(torch.rand(masks.shape, generator=draw) < 0.2, ignored)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ignored", [255, -100])
def test_every_figure_is_what_torchmetrics_says(seed, ignored):
    scores, masks = drawn(seed, ignored=ignored)
    task, batch = Segmentation(), batch_of(masks)
    counts = masks != ignored
    said, true = scores.argmax(dim=1)[counts], masks[counts]
    options = {"num_classes": CLASSES}
    iou = classification.multiclass_jaccard_index(said, true, **options, average="macro")
    assert value_of(task, "miou", scores, batch) == pytest.approx(float(iou), abs=1e-6)
    each = classification.multiclass_jaccard_index(said, true, **options, average="none")
    assert value_of(task, "miou_foreground", scores, batch) == pytest.approx(float(each[1:].mean()), abs=1e-6)
    f1 = classification.multiclass_f1_score(said, true, **options, average="macro")
    assert value_of(task, "dice", scores, batch) == pytest.approx(float(f1), abs=1e-6)
    accuracy = classification.multiclass_accuracy(said, true, **options, average="micro")
    assert value_of(task, "pixel_accuracy", scores, batch) == pytest.approx(float(accuracy), abs=1e-6)


def test_dice_of_one_image_is_torchmetrics_dice_of_all_its_classes():
    scores, masks = drawn(5, n=1)
    masks = masks.clamp(max=CLASSES - 1)
    expected = dice_score(scores.argmax(dim=1), masks, CLASSES, average="macro", input_format="index")
    assert value_of(Segmentation(), "dice", scores, batch_of(masks)) == pytest.approx(float(expected), abs=1e-6)


def test_a_class_that_is_neither_there_nor_said_counts_in_no_mean_and_one_that_is_only_said_does():
    masks = torch.zeros(1, 2, 2, dtype=torch.int64)
    masks[0, 0, 0] = 1
    perfect = 9.0 * torch.nn.functional.one_hot(masks, 3).movedim(-1, 1).float()
    assert value_of(Segmentation(), "miou", perfect, batch_of(masks)) == 1.0
    said = perfect.clone()
    said[0, 2, 1, 1] = 99.0
    # class 0: 2 of 3, class 1: 1 of 1, class 2: 0 of 1
    assert value_of(Segmentation(), "miou", said, batch_of(masks)) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_an_image_without_a_counted_pixel_adds_nothing():
    scores, masks = drawn(1)
    empty = torch.full_like(masks[:1], 255)
    both = torch.cat([scores, scores[:1]]), batch_of(torch.cat([masks, empty]))
    for name in ("miou", "dice", "pixel_accuracy"):
        assert value_of(Segmentation(), name, *both) == value_of(Segmentation(), name, scores, batch_of(masks))
    assert torch.allclose(Segmentation().loss(*both), Segmentation().loss(scores, batch_of(masks)))
    assert float(Segmentation().losses(*both)[-1]) == 0
    alone = scores[:1].clone().requires_grad_()
    Segmentation().loss(alone, batch_of(empty)).backward()
    assert bool((alone.grad == 0).all())


def test_the_loss_is_that_of_torch():
    scores, masks = drawn(2)
    expected = torch.nn.functional.cross_entropy(scores, masks, ignore_index=255)
    assert torch.allclose(Segmentation().loss(scores, batch_of(masks)), expected)


def test_scores_smaller_than_the_masks_are_interpolated():
    scores, _ = drawn(3)
    masks = drawn(4, size=(24, 28))[1]
    large = torch.nn.functional.interpolate(scores, size=(24, 28), mode="bilinear", align_corners=False)
    for name in ("miou", "dice"):
        assert value_of(Segmentation(), name, scores, batch_of(masks)) == value_of(
            Segmentation(), name, large, batch_of(masks)
        )


def test_one_logit_is_the_second_of_two_classes():
    draw = torch.Generator().manual_seed(0)
    masks = torch.randint(2, (3, 5, 6), generator=draw)
    logit = torch.randn(3, 5, 6, generator=draw)
    expected = classification.binary_jaccard_index((logit > 0).long(), masks)
    for outputs in (logit, logit[:, None], {"out": logit[:, None], "aux": torch.zeros(3, 1, 2, 2)}):
        for targets in (masks, masks[:, None], masks.float()[:, None], masks.bool(), masks.to(torch.uint8)):
            Segmentation().check(outputs, batch_of(targets))
            found = value_of(Segmentation(), "miou_foreground", outputs, batch_of(targets))
            assert found == pytest.approx(float(expected), abs=1e-6)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logit, masks.float())
    assert torch.allclose(Segmentation().loss(logit, batch_of(masks)), bce, atol=1e-6)


def test_volumes_are_read_too():
    draw = torch.Generator().manual_seed(0)
    masks = torch.randint(3, (2, 4, 5, 6), generator=draw)
    scores = torch.randn(2, 3, 4, 5, 6, generator=draw)
    expected = classification.multiclass_jaccard_index(scores.argmax(dim=1), masks, num_classes=3, average="macro")
    assert value_of(Segmentation(), "miou", scores, batch_of(masks)) == pytest.approx(float(expected), abs=1e-6)
    flat = masks[:, :1]
    assert value_of(Segmentation(), "miou", scores[:, :, :1], batch_of(flat)) > 0


def test_counts_per_class_are_there_for_a_report():
    scores, masks = drawn(0)
    task = Segmentation(tuple("abcd"))
    seen = task.observe(scores, batch_of(masks))
    total = task.totals(seen, torch.ones(1, 3).double().numpy())
    assert isinstance(total, Tally)
    assert total.support[0].sum() == int((masks != 255).sum())


def test_an_answer_is_the_mask():
    assert Segmentation().decode(torch.tensor([[[[1.0, -1.0]]]])).labels == ([[1, 0]],)


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "said"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), DataError, r"masks of class numbers, \(2, height"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 3), DataError, r"class numbers 0..2 .* got 3..3"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), -1), DataError, r"class numbers 0..2 .* got -1..-1"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 0.5), DataError, "with fractions"),
        (torch.zeros(2, 3, 4, 4), None, DataError, "got None"),
        (torch.zeros(2, 3), torch.zeros(2, 4, 4).long(), ShapeError, r"scores of each class, .* got \(2, 3\)"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(2, 4, 4).long(), ShapeError, r"got \(1, 3, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, 255]).repeat(2, 4, 2), DataError, "divide them by 255"),
        (
            torch.zeros(2, 4, 4).long(),
            torch.zeros(2, 4, 4).long(),
            ModelError,
            "scores, got torch",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(outputs, targets, error, said):
    with pytest.raises(error, match=said) as caught:
        Segmentation().check(outputs, batch_of(targets, n=2))
    assert "\n" not in str(caught.value)


def test_255_is_not_counted_once_it_is_said_or_beside_pixels_of_both_classes():
    border = torch.tensor([0, 255]).repeat(2, 4, 2)
    Segmentation(ignore_index=255).check(torch.zeros(2, 1, 4, 4), batch_of(border))
    border[0, 0, 0] = 1
    Segmentation().check(torch.zeros(2, 1, 4, 4), batch_of(border))


def test_a_wrong_class_number_is_said_while_measuring_too():
    with pytest.raises(DataError, match=r"class numbers 0\.\.2"):
        Segmentation().observe(torch.zeros(2, 3, 2, 2), batch_of(torch.full((2, 2, 2), 7)))


def test_a_model_of_transformers_whose_scores_are_a_quarter_of_the_size_is_read_as_it_is():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=3, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 8], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 1], mlp_ratios=[2, 2], decoder_hidden_size=8,
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    images, masks = torch.randn(2, 3, 32, 32), torch.randint(3, (2, 32, 32))
    with torch.no_grad():
        outputs = model(images, labels=masks)
    assert tuple(outputs.logits.shape[2:]) == (8, 8)
    Segmentation().check(outputs, batch_of(masks))
    assert torch.allclose(Segmentation().loss(outputs, batch_of(masks)), outputs.loss, rtol=1e-5)
