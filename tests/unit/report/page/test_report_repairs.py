"""A report says of every adjustment whether it was kept, and names what couldn't be adjusted."""

from __future__ import annotations

import io

from rich.console import Console

from prunus.report import print_summary, render_html
from prunus.report.page.repairs import adjustment_lines
from report_samples import sample

NOTE = "up: isn't adjusted (least_squares), since a ConvTranspose2d isn't fitted"


def adjusted(after: str, *checks: tuple[str, float, float, str], **more):
    rows = [
        {
            "kind": kind,
            "before": before,
            "after": now,
            "verdict": verdict,
            "fitted": ["a"],
            "returned": [],
            "left_out": {},
        }
        for kind, before, now, verdict in checks
    ]
    rows[0] |= more
    return {
        "seed": 0,
        "after": after,
        "checks": rows,
        "notes": [NOTE],
        "n_fitted": 60,
        "n_held_out": 20,
        "measure": "kl",
    }


TWO_CUTS = [
    adjusted("prune 1 of 2", ("least_squares", 0.4, 0.2, "kept"), ("batch_norm", 0.2, 0.9, "taken back")),
    adjusted("prune 2 of 2", ("least_squares", 0.6, 0.4, "kept"), ("batch_norm", 0.4, 0.3, "kept"), returned=["<b>"]),
]


def test_each_kind_has_a_line_and_what_was_left_out_is_said_once():
    assert adjustment_lines(sample(adjustments=TWO_CUTS)) == [
        "adjusted by least_squares: kept after 2 of 2 cuts (0.5 -> 0.3), 1 layer taken back alone",
        (
            "adjusted by batch_norm: kept after 1 of 2 cuts (0.4 -> 0.3), taken back, as it was worse after 1 of 2 cuts "
            "(0.2 -> 0.9); numbers are the divergence of the answers from the dense model's, in nats, on 20 calibration "
            "examples that nothing was fitted to"
        ),
        NOTE,
    ]


def test_summary_and_page_say_it_and_nothing_where_nothing_was_adjusted():
    record, plain = sample(adjustments=TWO_CUTS), sample()
    for has, made in ((True, record), (False, plain)):
        text = io.StringIO()
        print_summary(made, Console(file=text, width=400))
        assert ("adjusted by batch_norm: kept after 1 of 2 cuts" in text.getvalue()) == has
        page = render_html(made)
        assert ("Set right after the cut" in page) == has
        assert "<b></" not in page
    assert "<code>&lt;b&gt;</code>" in render_html(record)
