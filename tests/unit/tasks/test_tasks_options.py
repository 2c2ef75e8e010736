"""What a task was made with goes into a file as plain values, and comes back checked."""

import json

import pytest

from prunus.core.errors import RecipeError, UnknownNameError
from prunus.tasks import (
    Agreement,
    Classification,
    Detection,
    Language,
    Regression,
    Retrieval,
    Segmentation,
    TokenClassification,
    make_task,
    options_of,
    own_task,
    task_of_options,
    tasks,
    unscaled,
)

MADE = {
    "agreement": Agreement(scores=True, tolerance=0.1),
    "classification": Classification(("a", "b"), class_weights=(1.0, 2.5), label_smoothing=0.1),
    "detection": Detection(("a", "b"), activation="sigmoid", nms=0.5, shown_from=0.3, max_objects=20),
    "language": Language(targets_are_next=True),
    "multilabel": make_task("multilabel", class_names=("a", "b")),
    "regression": Regression(mean=1.5, deviation=2.0),
    "retrieval": Retrieval(temperature=0.1),
    "segmentation": Segmentation(("a", "b"), ignore_index=7),
    "sequence_to_sequence": make_task("sequence_to_sequence"),
    "token_classification": TokenClassification(("O", "B-A")),
}


@pytest.mark.parametrize("name", sorted(tasks))
def test_a_registered_task_comes_back_as_it_was_made(name):
    options = json.loads(json.dumps(options_of(MADE[name])))
    assert task_of_options(name, options) == MADE[name]
    assert options_of(make_task(name)) == {}


def test_what_is_known_of_the_data_gives_way_to_what_was_said():
    assert task_of_options("detection", {"nms": 0.5}, class_names=("a",)) == Detection(("a",), nms=0.5)
    assert task_of_options("detection", {"class_names": ["b"]}, class_names=("a",)) == Detection(("b",))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("detection", {"nms": "much"}, "task detection: nms must be a float: got 'much'"),
        ("detection", {"nms": True}, "nms must be a float"),
        ("detection", {"max_objects": 2.5}, "max_objects must be a int"),
        ("detection", {"class_names": "ab"}, "class_names must be a tuple"),
        ("detection", {"activation": "relu"}, "activation is softmax or sigmoid"),
        ("detection", {"iou": 0.5}, "task detection has the options activation, class_names, .*: got 'iou'"),
        ("detection", {"__class__": "x"}, "got '__class__'"),
        ("classification", {"class_weights": [float("inf")]}, "class_weights must be a tuple"),
        ("sequence_to_sequence", {"nms": 1}, "has the options none: got 'nms'"),
    ],
)
def test_options_that_a_task_hasnt_got_are_one_line(name, options, words):
    with pytest.raises(ValueError, match=words) as error:
        task_of_options(name, options)
    assert "\n" not in str(error.value)


def test_an_unknown_task_names_the_near_ones():
    with pytest.raises(UnknownNameError, match="detection"):
        task_of_options("detections", {})


def test_a_value_that_is_no_plain_one_cant_be_written():
    with pytest.raises(RecipeError, match="task detection: nms must be a plain value to go into a file: got inf"):
        options_of(Detection(nms=float("inf")))


def test_a_class_of_ones_own_needs_its_code():
    class Mine(Detection):
        pass

    assert Detection(nms=0.5).reader == Detection(nms=0.5)
    assert Mine().reader is None
    measured = {"metric": {"gap": lambda outputs, targets: 0.0}, "higher_is_better": False}
    assert own_task(Detection(nms=0.5), **measured).reader == Detection(nms=0.5)
    assert own_task(Mine(), **measured).reader is None


def test_a_regression_in_the_targets_own_units_is_neither_shifted_nor_stretched():
    assert unscaled(Regression(2.0, 3.0)) == Regression()
    assert unscaled(Classification(("a", "b"))) == Classification(("a", "b"))
