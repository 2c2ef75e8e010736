"""How is the result of a run told: as a record for machines, as text, as a page?"""

from prunus.report.bench_text import print_bench
from prunus.report.format import suspected_labels
from prunus.report.gate_text import print_gate
from prunus.report.page.charts import graph_svg
from prunus.report.page.examples_page import render_examples, write_examples_html
from prunus.report.page.html import render_html, write_html
from prunus.report.page.images import png_data_uri, with_pictures
from prunus.report.page.safety.safety_page import render_safety
from prunus.report.page.search_page import render_search, write_search_page
from prunus.report.page.sections.int8_table import int8_outcome, with_int8
from prunus.report.record import GraphFacts, LabelFacts, PrecisionFacts, RunRecord
from prunus.report.record_examples import ExamplesFacts
from prunus.report.record_file import load_record, record_json, save_record
from prunus.report.record_gate import GateFacts
from prunus.report.record_safety import SafetyFacts
from prunus.report.record_shipped import ExportFacts
from prunus.report.safety_file import load_safety
from prunus.report.summary_text import (
    exported_line,
    int8_line,
    predictions_csv,
    print_cleaned,
    print_criteria,
    print_plan,
    print_predictions,
    print_qualities,
    print_summary,
    problem_line,
)
from prunus.report.texts.estimate_text import print_estimate
from prunus.report.texts.safety_text import print_safety
from prunus.report.texts.scores_text import print_scores
from prunus.report.texts.search_text import print_search
from prunus.report.texts.sizes_text import print_sizes

__all__ = [
    "ExamplesFacts",
    "ExportFacts",
    "GateFacts",
    "GraphFacts",
    "LabelFacts",
    "PrecisionFacts",
    "RunRecord",
    "SafetyFacts",
    "exported_line",
    "graph_svg",
    "int8_line",
    "int8_outcome",
    "load_record",
    "load_safety",
    "png_data_uri",
    "predictions_csv",
    "print_bench",
    "print_cleaned",
    "print_criteria",
    "print_estimate",
    "print_gate",
    "print_plan",
    "print_predictions",
    "print_qualities",
    "print_safety",
    "print_scores",
    "print_search",
    "print_sizes",
    "print_summary",
    "problem_line",
    "record_json",
    "render_examples",
    "render_html",
    "render_safety",
    "render_search",
    "save_record",
    "suspected_labels",
    "with_int8",
    "with_pictures",
    "write_examples_html",
    "write_html",
    "write_search_page",
]
