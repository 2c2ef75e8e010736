"""The page about examples shows everything that is in its facts, and nothing in them is carried out."""

import re
from html.parser import HTMLParser

import pytest
from pydantic import ValidationError

from prunus.report import ExamplesFacts, png_data_uri, render_examples
from prunus.report.page.example_map import map_html
from prunus.report.record_examples import MapFacts

NASTY = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'


def number(name, value):
    return {"name": name, "value": value, "low": value - 0.01, "high": value + 0.01, "unit": "share"}


def a_map(n=5, of="a model’s last layer", decisions=("keep", "drop", "relabel", "flag", "keep")):
    return {
        "n": n,
        "of": of,
        "explained": 0.4,
        "id": [f"photo {i}" for i in range(5)],
        "x": [0.0, 1.0, 2.0, 3.0, 4.0],
        "y": [0.0, 1.0, 4.0, 1.0, 0.0],
        "decision": list(decisions),
        "label": ["cat"] * 5,
        "reason": ["", "looks like a dog", "", "", ""],
    }


def facts(text="photo", image=None):
    suspect = {"id": text, "given": text, "suggested": text, "score": 0.02, "action": "relabelled", "image": image}
    pair = {
        "kind": "leaked", "id": text, "other": text, "label": text, "other_label": text, "likeness": 0.99,
        "image": image, "other_image": image, "values": text, "other_values": text,
    }  # fmt: skip
    return ExamplesFacts.model_validate(
        {
            "name": text,
            "source": text,
            "task": "classification",
            "n": {"train": 500, "test": 100},
            "labels": {
                "n": 500, "noise": number("noise", 0.1), "evidence": "folds", "n_dropped": 2, "n_relabelled": 3,
                "n_flagged": 0, "n_spared": 1, "repaired": 0.98,
            },
            "precision": [{"action": "relabelled", "n": 3, "precision": number("precision", 0.9), "noise": 0.1}],
            "classes": [{"name": text, "before": 9, "removed": 2, "relabelled": 3}],
            "suspects": [suspect | {"values": text}],
            "pairs": [pair, pair | {"kind": "dropped"}, pair | {"kind": "otherwise"}],
            "n_alike": {"leaked": 7, "dropped": 1, "otherwise": 1},
            "map": {**a_map(of=text), "id": [text] * 5, "label": [text] * 5, "reason": [text] * 5},
            "notes": [text],
        }
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("image", [None, png_data_uri([[0.0, 1.0]])])
def test_no_name_is_carried_out_and_nothing_is_loaded(image):
    tags = Tags()
    tags.feed(render_examples(facts(NASTY, image)))
    assert not any(tag == "script" or "onerror" in attributes for tag, attributes in tags.found)
    assert all(a.get("src", "data:").startswith("data:") and "href" not in a for _, a in tags.found)


def test_the_page_says_how_many_labels_are_wrong_and_of_each_list_how_many():
    page = render_examples(facts())
    assert "10.0 % of 500 training labels are estimated to be wrong" in page
    assert "90.0 % of them wrong, by the estimate" in page
    assert "98.0 % of the relabelled are estimated to be right now" in page
    assert "1 stay though they look wrong" in page
    assert "test examples that training knows" in page
    assert render_examples(facts()) == page


def test_a_share_that_nobody_knows_is_not_told():
    unsure = facts()
    wide = unsure.labels.noise.model_copy(update={"low": 0.01, "high": 0.4})
    page = render_examples(unsure.model_copy(update={"labels": unsure.labels.model_copy(update={"noise": wide})}))
    assert "How many of 500 training labels are wrong can’t be told" in page
    assert "how many of all can&#x27;t be told, since the models are too unsure (1.0 % to 40.0 %)" in page
    assert "10.0 %" not in page


def test_a_pair_stands_side_by_side_with_its_pictures():
    picture = png_data_uri([[0.0, 1.0]])
    page = render_examples(facts(image=picture))
    pairs = re.findall(r"<li><div>(.*?)</div>", page)
    assert [pair.count(picture) for pair in pairs] == [2, 2, 2]


def test_every_point_of_the_map_has_its_name_and_why_and_its_own_place():
    drawn = map_html(MapFacts.model_validate(a_map()))
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"><title>(.*?)</title>', drawn, re.DOTALL)
    assert len(points) == 5
    assert len({(x, y) for x, y, _ in points}) == 5
    assert "photo 1: cat\nlooks like a dog" in [title for *_, title in points]
    by_name = {title.partition(":")[0]: (float(x), float(y)) for x, y, title in points}
    assert by_name["photo 4"][0] - by_name["photo 3"][0] == pytest.approx(by_name["photo 1"][0] - by_name["photo 0"][0])
    assert by_name["photo 2"][1] < by_name["photo 0"][1], "up is up"
    assert list(re.findall(r'<li class="(\w+)">', drawn)) == ["keep", "flag", "drop", "relabel"]


def test_that_a_map_shows_a_sample_is_said():
    assert "All 5 training examples" in map_html(MapFacts.model_validate(a_map()))
    assert "of 9\u2009000 training examples" in map_html(MapFacts.model_validate(a_map(n=9000)))


def test_ragged_columns_are_no_map():
    with pytest.raises(ValidationError, match="equally long"):
        MapFacts.model_validate({**a_map(), "x": [0.0]})
