"""Boxes are counted as pycocotools counts them, an image that weighs two is the image seen twice, and other answers are refused."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from prunus.core.batch import Batch
from prunus.core.errors import DataError, ModelError
from prunus.tasks import Detection, average_precisions, measured, metrics_of, own_losses, rows_of

NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100")
_OF_COCO = (0, 1, 2, 3, 4, 5, 8)


def target(boxes, labels, **more):
    return {"boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), "labels": torch.tensor(labels), **more}


def found(boxes, labels, scores):
    return target(
        boxes, torch.tensor(labels, dtype=torch.int64).tolist(), scores=torch.tensor(scores, dtype=torch.float64)
    )


def batch_of(targets, size=300):
    return Batch(torch.arange(len(targets)), torch.zeros(len(targets), 3, size, size), targets)


def observed(answers, targets, **options):
    return Detection(**options).observe(answers, batch_of(targets))


def ours(answers, targets):
    return measured(Detection(), NAMES, observed(answers, targets), np.ones((1, len(targets))))[0]


def cocos(answers, targets):
    """Return the same metrics from pycocotools; what it can't say (-1) is 0."""

    def rows(one, number):
        for place, (x1, y1, x2, y2) in enumerate(one["boxes"].tolist()):
            row = {"image_id": number, "category_id": int(one["labels"][place]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            yield place, row

    annotations, results = [], []
    for number, one in enumerate(targets):
        for place, row in rows(one, number):
            area = float(one["area"][place]) if "area" in one else row["bbox"][2] * row["bbox"][3]
            crowd = int(one["iscrowd"][place]) if "iscrowd" in one else 0
            annotations.append({**row, "id": len(annotations) + 1, "area": area, "iscrowd": crowd})
    for number, one in enumerate(answers):
        results += [{**row, "score": float(one["scores"][place])} for place, row in rows(one, number)]
    kinds = sorted({row["category_id"] for row in (*annotations, *results)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(targets))],
            "annotations": annotations,
            "categories": [{"id": kind} for kind in kinds],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.maximum(evaluation.stats[list(_OF_COCO)], 0), evaluation


def drawn(seed, n_classes=3):
    """Draw images with objects, some of them crowds, and boxes near them and elsewhere; some sets have ties or round numbers."""
    random = np.random.default_rng(seed)
    ties, rounded = seed % 3 == 1, seed % 3 == 2
    answers, targets = [], []
    for _ in range(random.integers(1, 9)):
        g = random.integers(0, 7)
        centre, side = random.uniform(10, 250, (g, 2)), np.exp(random.uniform(1.5, 5.2, (g, 2)))
        if rounded:
            centre, side = np.round(centre / 20) * 20, np.round(side / 20) * 20 + 20
        boxes, labels = np.concatenate([centre - side / 2, centre + side / 2], axis=1), random.integers(0, n_classes, g)
        targets.append(target(boxes.tolist(), labels.tolist(), iscrowd=torch.tensor(random.random(g) < 0.2)))
        said, kinds = [], []
        for box, label in zip(boxes, labels, strict=True):
            for _ in range(random.integers(0, 4)):
                said.append(box + random.normal(0, 4, 4) * (random.random() < 0.5 or not rounded))
                kinds.append(label if random.random() < 0.9 else random.integers(0, n_classes + 1))
        for _ in range(random.integers(0, 4)):
            corner = random.uniform(0, 200, 2)
            said.append(np.concatenate([corner, corner + random.uniform(5, 90, 2)]))
            kinds.append(random.integers(0, n_classes + 1))
        said = np.array(said).reshape(-1, 4)
        said[:, 2:] = np.maximum(said[:, 2:], said[:, :2] + 0.1)
        scores = random.random(len(said))
        answers.append(found(said.tolist(), [int(k) for k in kinds], np.round(scores * 5) / 5 if ties else scores))
    return answers, targets


SEEDS = [seed for seed in range(60) if any(len(one["boxes"]) for one in drawn(seed)[0])]


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_are_those_of_pycocotools(seed):
    answers, targets = drawn(seed)
    wanted, evaluation = cocos(answers, targets)
    np.testing.assert_allclose(ours(answers, targets), wanted, atol=1e-12)
    for place, label in enumerate(evaluation.params.catIds):
        alone = evaluation.eval["precision"][:, :, place, 0, 2]
        assert average_precisions(observed(answers, targets)).get(label, -1) == pytest.approx(alone.mean(), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_image_that_weighs_two_is_the_image_seen_twice(seed):
    answers, targets = drawn(seed)
    seen = observed(answers, targets)
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(targets)))
    together = measured(Detection(), NAMES, seen, weights.astype(float))
    for row, value in zip(weights, together, strict=True):
        again = rows_of(seen, np.repeat(np.arange(len(row)), row))
        np.testing.assert_allclose(value, measured(Detection(), NAMES, again, np.ones((1, row.sum())))[0], atol=1e-12)


BOX, OTHER = [10.0, 10, 60, 60], [100.0, 100, 140, 130]


@pytest.mark.parametrize(
    ("answers", "targets", "value"),
    [
        pytest.param([found([], [], [])], [target([BOX], [1])], 0, id="nothing is found"),
        pytest.param([found([BOX], [1], [0.9])], [target([], [])], 0, id="nothing is there"),
        pytest.param([found([BOX, OTHER], [1, 2], [0.9, 0.8])], [target([BOX], [1])], 1, id="a class is absent"),
        pytest.param([found([BOX, BOX], [1, 1], [0.9, 0.8])], [target([BOX], [1])], 1, id="the second comes too late"),
        pytest.param([found([BOX], [2], [0.9])], [target([BOX], [1])], 0, id="of another class"),
        pytest.param([found([BOX], [1], [0.9])], [target([BOX, OTHER], [1, 1])], 51 / 101, id="half of them"),
        pytest.param(
            [found([BOX, OTHER], [1, 1], [0.8, 0.9])],
            [target([BOX, OTHER], [1, 1], iscrowd=torch.tensor([0, 1]))],
            1,
            id="a crowd counts neither way",
        ),
        pytest.param(
            [found([[12.0, 10, 60, 60]], [1], [0.8])],
            [target([BOX, [0.0, 0, 300, 300]], [1, 1], iscrowd=torch.tensor([0, 1]))],
            1,
            id="an object goes before the crowd around it",
        ),
    ],
)
def test_small_cases_by_hand(answers, targets, value):
    assert ours(answers, targets)[0] == pytest.approx(value)


def test_only_the_hundred_best_boxes_of_a_class_in_an_image_count():
    wrong, right = [[200.0 + k / 10, 200, 230, 230] for k in range(100)], BOX
    answers = [found([*wrong, right], [1] * 101, [*np.linspace(0.9, 0.5, 100), 0.1])]
    assert ours(answers, [target([right], [1])])[0] == cocos(answers, [target([right], [1])])[0][0] == 0


def test_the_forms_in_which_detectors_answer_say_the_same():
    sizes = torch.tensor([300.0, 300, 300, 300])
    targets = [target([BOX, OTHER], [0, 1]), target([OTHER], [1])]
    listed = [found([BOX, OTHER], [0, 1], [0.9, 0.6]), found([BOX, OTHER], [1, 1], [0.5, 0.4])]
    parts = {key: torch.stack([one[key] for one in listed]) for key in ("boxes", "scores", "labels")}
    centres = torch.cat(
        [(parts["boxes"][..., :2] + parts["boxes"][..., 2:]) / 2, parts["boxes"][..., 2:] - parts["boxes"][..., :2]], 2
    )
    share = parts["scores"].unsqueeze(2) * nn.functional.one_hot(parts["labels"], 2)
    rest = torch.cat([share, 1 - share.sum(2, keepdim=True)], 2)
    queries = {"pred_boxes": centres / sizes, "logits": rest.log()}
    relative = [
        {
            "class_labels": one["labels"],
            "boxes": torch.cat(
                [(one["boxes"][:, :2] + one["boxes"][:, 2:]) / 2, one["boxes"][:, 2:] - one["boxes"][:, :2]], 1
            )
            / sizes,
        }
        for one in targets
    ]
    wanted = ours(listed, targets)
    assert 0 < wanted[0] < 1
    for answers, options in (
        (parts, {}),
        ((parts["boxes"], parts["scores"], parts["labels"]), {}),
        (queries, {"activation": "softmax"}),
        (queries, {"n_classes": 2}),
        ({**queries, "logits": share.logit()}, {"activation": "sigmoid"}),
        ({**queries, "logits": share.logit()}, {"class_names": ("a", "b")}),
    ):
        for given in (targets, relative):
            seen = Detection(**options).observe(answers, batch_of(given))
            np.testing.assert_allclose(measured(Detection(), NAMES, seen, np.ones((1, 2)))[0], wanted)


def test_boxes_that_overlap_one_of_a_higher_score_go_where_that_is_asked_for():
    close = [12.0, 10, 60, 60]
    answers = [found([close, BOX, BOX, OTHER], [1, 1, 2, 1], [0.6, 0.9, 0.8, 0.7])]
    read = Detection(nms=0.5).decode(answers).labels[0]
    assert [(one["class"], one["score"]) for one in read] == [("1", 0.9), ("2", 0.8), ("1", 0.7)]
    assert len(Detection(shown_from=0.65).decode(answers).labels[0]) == 3


def test_what_is_not_a_number_and_what_only_fills_up_is_no_box():
    answers = [found([BOX, [float("nan")] * 4, OTHER], [1, 1, -1], [0.5, 0.9, 0.8])]
    assert [one["class"] for one in Detection(class_names=("a", "b")).decode(answers).labels[0]] == ["b"]


def test_every_metric_of_detection_can_be_measured():
    answers, targets = drawn(0)
    values = measured(Detection(), metrics_of("detection"), observed(answers, targets), np.ones((2, len(targets))))
    assert values.shape == (2, len(metrics_of("detection")))
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize(
    ("answers", "targets", "words"),
    [
        (
            torch.zeros(1, 5),
            [target([BOX], [1])],
            r"expected boxes, scores and labels of 1 images.*got float32 \[1, 5\]",
        ),
        (
            {"loss_box": torch.ones(()), "loss_class": torch.ones(())},
            [target([BOX], [1])],
            "losses, as in training mode",
        ),
        (
            {"logits": torch.zeros(1, 3, 4), "pred_boxes": torch.zeros(1, 3, 4)},
            [target([BOX], [1])],
            r"scores of 4 classes",
        ),
        (
            {"logits": torch.zeros(1, 3, 4), "pred_boxes": torch.zeros(1, 2, 4)},
            [target([BOX], [1])],
            r"got \[1, 3, 4\] and \[1, 2, 4\]",
        ),
        (
            [{"boxes": torch.zeros(2, 4), "scores": torch.zeros(1), "labels": torch.zeros(1)}],
            [target([BOX], [1])],
            r"boxes \(k, 4\)",
        ),
    ],
)
def test_answers_of_another_kind_are_refused(answers, targets, words):
    with pytest.raises(ModelError, match=words):
        observed(answers, targets)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(1), r"expected a mapping of 'boxes'.*1 of them: got float32 \[1\]"),
        ([torch.zeros(4)], "for image 0"),
        ([{"boxes": torch.zeros(2, 4), "labels": torch.zeros(1)}], "got 2 boxes and 1 labels in image 0"),
        ([target([[100, 100, 40, 30]], [1])], "x, y, width and height"),
        ([target([BOX], [1], iscrowd=torch.zeros(2))], "got 2 and 1"),
        ([target([BOX] * 4, [1] * 4)], "at most 3 objects in an image: got 4; raise max_objects"),
        (None, "got None"),
    ],
)
def test_targets_of_another_kind_are_refused(targets, words):
    with pytest.raises(DataError, match=words):
        Detection(max_objects=3).observe(
            [found([BOX], [1], [0.9])], Batch(torch.arange(1), torch.zeros(1, 3, 8, 8), targets)
        )


def test_check_names_a_class_that_is_not_there():
    task = Detection(class_names=("a",))
    task.check([found([BOX], [0], [0.9])], batch_of([target([BOX], [0])]))
    with pytest.raises(DataError, match=r"expected classes 0..0: got 1"):
        task.check([found([BOX], [0], [0.9])], batch_of([target([BOX], [1])]))
    with pytest.raises(ModelError, match="softmax or sigmoid"):
        Detection(activation="relu")


class AsTorchvision(nn.Module):
    """Losses by name in training mode, boxes in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, images: list[Tensor], targets: list | None = None):
        features = self.body(torch.stack(images)).mean(dim=(2, 3))
        if not self.training:
            return [{"boxes": row[None], "scores": torch.ones(1), "labels": torch.ones(1)} for row in features]
        return {"first": features.sum(), "second": features[:, 0].sum() * len(targets)}


class AsTransformers(nn.Module):
    """An answer that holds the loss where there are labels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 8)

    def forward(self, pixel_values: Tensor, labels: list | None = None):
        boxes = self.body(pixel_values).flatten(2).mT
        loss = None if labels is None else sum((boxes - one["boxes"]).abs().mean() for one in labels)
        return {"loss": loss, "logits": boxes, "pred_boxes": boxes}


def test_a_detector_gives_its_own_loss_when_it_is_handed_the_targets():
    torch.manual_seed(0)
    model, images, targets = AsTorchvision().eval(), [torch.rand(3, 8, 8) for _ in range(2)], [target([BOX], [1])] * 2
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = Batch(torch.arange(2), (images,), targets)
    features = model.body(torch.stack(images)).mean(dim=(2, 3))
    assert own_losses(model, batch) == features.sum() + 2 * features[:, 0].sum()
    assert own_losses(model, batch._replace(inputs=(images, targets), targets=None)) == own_losses(model, batch)
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    pixels, labels = torch.rand(2, 3, 8, 8), [target([BOX], [1])] * 2
    other = AsTransformers()
    whole = other(pixels, labels)
    batch = Batch(torch.arange(2), {"pixel_values": pixels}, labels)
    assert own_losses(other, batch) == whole["loss"]
    assert Detection().loss(whole, batch) == whole["loss"]
    assert Detection().losses(whole, batch).shape == (2,)
    with pytest.raises(
        ModelError, match=r"expected losses from the model when it has the targets.*float32 \[2, 4, 1, 1\]"
    ):
        own_losses(other.body, Batch(torch.arange(2), pixels, labels))
    with pytest.raises(ModelError, match="or training_step="):
        Detection().loss(other(pixels), batch)
