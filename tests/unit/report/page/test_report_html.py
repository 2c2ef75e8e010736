import re
from html.parser import HTMLParser

import pytest

from prunus.core.errors import MissingExtraError
from prunus.report import render_html, with_pictures, write_html
from prunus.report.page import charts
from prunus.report.page import html as module
from prunus.report.page.charts import all_charts
from prunus.report.page.page_marks import escape, forest
from prunus.report.page.page_style import PALETTE, STYLE
from prunus.report.record import Number
from report_samples import facts_of, number, plainest, regression, sample

VOID = {"meta", "img", "br"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Checks that every tag is closed in order, and gathers what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action", "data")]
        self.ids += [v for k, v in attrs if k == "id"]
        assert not any(k.startswith("on") for k, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module", params=[sample, regression, plainest])
def page(request):
    return render_html(request.param())


def test_the_page_is_well_formed_and_loads_nothing(page):
    read = Page(page)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in read.links)
    assert not {"script", "link", "iframe", "object", "form"} & set(read.tags)
    assert "url(" not in page.replace("url(#", "")
    assert "@import" not in page
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in page


def test_drawings_do_not_share_identifiers(page):
    ids = Page(page).ids
    assert len(ids) == len(set(ids))


def test_identifiers_of_a_drawing_are_told_apart_by_its_number():
    altair = pytest.importorskip("altair")
    drawn = charts._svg(
        altair.Chart(altair.Data(values=[])).mark_point(),
        lambda spec: '<clipPath id="clip1"/><g clip-path="url(#clip1)"/><use href="#clip1"/>',
        "c3",
    )
    assert drawn == '<clipPath id="c3-clip1"/><g clip-path="url(#c3-clip1)"/><use href="#c3-clip1"/>'


def test_the_same_record_gives_the_same_page():
    assert render_html(sample()) == render_html(sample())


def test_it_says_what_was_found():
    text = " ".join(" ".join(Page(render_html(sample())).text).split())
    for part in (
        "5.0× fewer MACs, 4.0× smaller on disk, no measurable difference in accuracy",
        "−1.0 points (−2.2 to +0.3), 3 seeds, paired, 95 % interval",
        "9/10 labels flipped on purpose were found",
        "8 removed, 2 relabelled, of 100",
        "macro F1",
        "it is the output's dimension 1",
        "7 in test is 3 in train",
        "torch 2.13.0",
    ):
        assert part in text


def test_a_smaller_error_is_drawn_on_the_better_side():
    worse = Number(name="mae", value=0.4, low=0.2, high=0.6)

    def middle(drawing):
        return float(re.search(r'cx="([\d.]+)"', drawing)[1])

    assert middle(forest(worse, reach=1.0, flip=True)) < 75 < middle(forest(worse, reach=1.0))
    assert "mark worse" in render_html(regression())


def test_an_interval_beyond_the_reach_ends_at_the_edge():
    drawing = forest(Number(name="x", value=0.0, low=-9.0, high=9.0), reach=1.0)
    assert 'd="M5.0 10H145.0"' in drawing


def test_nothing_from_a_record_is_markup():
    facts = facts_of(sample())
    classes = [HOSTILE, "dog"]
    for row in facts["quality"]:
        row["per_class"][0]["name"] = HOSTILE
    record = sample(
        name="a",
        recipe={"name": HOSTILE, "evaluation": {"confidence": 0.9}},
        versions={HOSTILE: HOSTILE},
        fingerprints={HOSTILE: HOSTILE},
        data=facts["data"] | {"class_names": classes, "source": HOSTILE, "duplicates": [HOSTILE]},
        quality=facts["quality"],
        class_changes=[number(0.1, name=HOSTILE)],
        layers=[{"name": HOSTILE, "granularity": HOSTILE, "before": 2, "after": 1}],
        classes=[{"name": HOSTILE, "before": 2, "removed": 1, "relabelled": 0}],
        features=[{"name": HOSTILE, "importance": 0.1, "kept": True}],
        suspects=[facts["suspects"][0] | {"id": HOSTILE, "given": HOSTILE, "suggested": HOSTILE}],
        frozen=[{"name": HOSTILE, "size": 1, "reason": HOSTILE}],
        notes=[HOSTILE],
        curves={HOSTILE: {"loss": [1.0, 0.5], "accuracy": []}},
        timing={"latency": facts["timing"]["latency"] | {"runtime": HOSTILE}},
    )
    text = render_html(record)
    assert "<script" not in text.lower()
    assert "script" not in Page(text).tags
    assert "90 % interval" in text


def test_suspects_without_pictures_are_a_table():
    suspects = [s | {"image": None} for s in facts_of(sample())["suspects"]]
    text = render_html(sample(suspects=suspects))
    assert "<img" not in text
    assert "<td>17</td><td>cat</td><td>dog</td>" in text


def test_measured_sensitivity_is_drawn_the_most_sensitive_by_name():
    curves = [
        {"name": f"layer{i}", "granularity": "channel", "points": [(1.0, 0.5), (0.5, 0.5 + i), (0.1, 0.5 + 2 * i)]}
        for i in range(6)
    ]
    (chart,) = (chart for chart in all_charts(sample(sensitivity=curves)) if chart.title == "Sensitivity")
    named = set(re.findall(r"layer\d", re.sub(r"aria-label=\"[^\"]*\"", "", chart.svg)))
    assert named == {"layer5", "layer4", "layer3", "layer2"}
    assert "one layer alone pruned" in chart.note


def test_without_the_extra_the_page_has_its_tables_and_says_how_to_get_charts(monkeypatch):
    def missing(record):
        raise MissingExtraError("this needs the package 'altair': pip install 'prunus[report]'")

    monkeypatch.setattr(module, "all_charts", missing)
    text = render_html(sample())
    Page(text)
    assert "<figure>" not in text
    assert (
        "charts are missing: this needs the package &#x27;altair&#x27;: pip install &#x27;prunus[report]&#x27;" in text
    )
    assert "conv1" in text


def test_there_is_a_chart_for_everything_that_happened_and_for_nothing_else():
    assert [chart.title for chart in all_charts(sample())] == [
        "Test accuracy against size",
        "Change per class",
        "Kept per layer",
        "Training examples per class",
        "Learning curves",
    ]
    assert [chart.title for chart in all_charts(regression())] == [
        "Test R² against size",
        "Kept per layer",
        "Input features",
        "Learning curves",
    ]
    assert [chart.title for chart in all_charts(plainest())] == ["Test accuracy against size"]


def test_a_chart_of_many_rows_shows_those_that_changed_most():
    layers = [{"name": f"layer{i}", "granularity": "channel", "before": 100, "after": 100 - i} for i in range(60)]
    chart = next(chart for chart in all_charts(sample(layers=layers)) if chart.title == "Kept per layer")
    assert "The 24 that changed most, of 60." in chart.note
    assert ">layer59<" in chart.svg
    assert ">layer35<" not in chart.svg
    assert "layer35" in render_html(sample(layers=layers))


def test_every_colour_of_a_drawing_has_its_counterpart_in_the_dark():
    used = {
        colour
        for make in (sample, regression)
        for chart in all_charts(make())
        for colour in re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]+)"', chart.svg)
    }
    assert used <= set(PALETTE.values())
    for name, colour in PALETTE.items():
        assert f'svg [fill="{colour}"]{{fill:var(--{name})}}' in STYLE
        assert STYLE.count(f"--{name}:") == 2


def test_a_class_without_test_examples_is_named():
    facts = facts_of(sample())
    data = facts["data"] | {"class_names": ["cat", "dog", "owl"]}
    assert "Without test examples, so in no average over classes: owl." in render_html(sample(data=data))


def test_a_minus_is_a_minus_and_a_hyphen_stays_one():
    assert escape("-0.3 points (-0.8 to -0.1), x-1, e-3") == "−0.3 points (−0.8 to −0.1), x-1, e-3"


def test_a_slower_model_is_called_slower():
    latency = facts_of(sample())["timing"]["latency"] | {"speedup": number(0.5, 0.4, 0.6, "speedup")}
    text = render_html(sample(timing={"latency": latency}))
    assert "<b>2.0×</b><span>slower</span>" in text


def test_the_page_is_written_in_one_step(tmp_path):
    write_html(sample(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_html(sample())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_page_says_how_many_of_the_suspected_labels_are_wrong():
    facts = [
        {"action": "relabelled", "n": 40, "precision": number(0.9, 0.82, 0.97), "noise": 0.06},
        {"action": "removed", "n": 12, "precision": number(0.4, 0.2, 0.6), "noise": 0.06},
    ]
    text = render_html(sample(precision=facts))
    assert "Labels estimated to be wrong, if by chance: 90.0" in text
    assert "of the 12 removed" in text
    assert "estimated to be wrong" not in render_html(sample())


def test_pictures_are_a_section_of_their_own_with_captions_escaped():
    plain = render_html(sample())
    text = with_pictures(plain, "What both find", [('<img src="data:image/png;base64,AA==" alt="">', "a <b>")])
    assert text.count("<section>") == plain.count("<section>") + 1
    assert "<figcaption>a &lt;b&gt;</figcaption></figure></div></div></section></main>" in text
