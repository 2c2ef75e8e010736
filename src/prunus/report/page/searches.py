"""What did the search for a target find, and what may one rely on?"""

from __future__ import annotations

from collections.abc import Sequence

from prunus.report.format import called, is_share, percent
from prunus.report.page.page_marks import details, escape, table
from prunus.report.record import RunRecord
from prunus.report.record_searches import CandidateRow, ContractFacts, SearchFacts, WorstClassFacts, WorstGroupFacts

__all__ = ["candidate_cells", "drop", "outcome", "search_html"]

HEAD = ("model", "asked", "cost left", "drop, calibration", "drop, validation", "at most", "contract")


def outcome(search: SearchFacts) -> str:
    """Return the result of a search in one sentence: what is delivered, and what was shown of it."""
    found, contract = search.result, search.contract
    if found is None and search.too_slow:
        return f"the smaller model isn't delivered, the dense one is: {search.too_slow}"
    if found is None:
        assert contract is not None
        return (
            f"no smaller model was found that keeps the contract ({_promise(contract)}); the dense model is delivered, "
            f"and {len(search.candidates)} candidates are listed"
        )
    cost = {"macs": "MACs", "params": "parameters"}.get(search.cost, search.cost)
    said = f"{_percent(found.share)} of the dense {cost} {'is' if search.cost == 'latency' else 'are'} left"
    if search.asked is None:
        said += ", the least that was shown to keep the contract"
    elif found.asked > search.asked * 1.001:
        said += f", the least that was shown to keep the contract ({_percent(search.asked)} was asked for)"
    else:
        said += f" ({_percent(search.asked)} was asked for)"
    if search.runtime is not None:
        said += f", measured in {'ONNX Runtime' if search.runtime == 'onnxruntime' else search.runtime}"
    if contract is None or found.test is None:
        return said
    bound = found.test.bound
    shown = f"drops by at most {drop(contract.metric, bound)}"
    if bound < 0:  # a drop of less than none
        shown = f"gets better by at least {drop(contract.metric, -bound)}"
    return (
        f"{said}; {called(contract.metric)} {shown} with "
        f"{_percent(contract.confidence)} confidence on {search.n_validation} validation examples "
        f"({drop(contract.metric, contract.max_drop)} allowed){_of_classes(found.test.worst)}"
        f"{_of_groups(contract.metric, found.test.worst_group)}"
    )


def _of_classes(worst: WorstClassFacts | None) -> str:
    """Return what was shown of the classes, where the contract speaks of them."""
    if worst is None:
        return ""
    said = (
        f"; no class loses more than {_in_points(worst.bound)} of its recall ({_in_points(worst.max_drop)} allowed; the least sure "
        f"one is {worst.name})"
    )
    return said + _left_out(worst.left_out)


def _of_groups(metric: str, worst: WorstGroupFacts | None) -> str:
    """Return what was shown of the groups, where the contract speaks of them."""
    if worst is None:
        return ""
    said = (
        f"; no group of {worst.column} loses more than {drop(metric, worst.bound)} of its {called(metric)} "
        f"({drop(metric, worst.max_drop)} allowed; the least sure one is {worst.name})"
    )
    return said + _left_out(worst.left_out) + _left_out(worst.unknown, f"where {called(metric)} is no number")


def _left_out(names: Sequence[str], why: str = "which have too few examples") -> str:
    return f"; nothing is promised about {', '.join(names)}, {why}" if names else ""


def drop(metric: str, number: float | None) -> str:
    """Return a drop in the metric's unit, of shares in points.

    >>> drop("accuracy", 0.0123), drop("mae", 0.5), drop("accuracy", None)
    ('1.23 points', '0.5', '–')
    """
    if number is None:
        return "–"
    return f"{100 * number + 0.0:.2f} points" if is_share(metric) else f"{number:.3g}"


def candidate_cells(search: SearchFacts, row: CandidateRow) -> list[str]:
    """Return the cells of one candidate, under ``HEAD``."""
    metric = search.contract.metric if search.contract is not None else ""
    return [
        f"{row.number}{' (delivered)' if row.number == search.delivered else ''}",
        _percent(row.asked),
        _percent(row.share),
        drop(metric, row.calibration_drop),
        drop(metric, row.test.drop if row.test else None),
        drop(metric, row.test.bound if row.test else None),
        _verdict(row) if search.contract is not None else "",
    ]


def _verdict(row: CandidateRow) -> str:
    """Return what became of the contract, and for which class it wasn't shown."""
    if row.test is None:
        return row.verdict
    said: str = row.verdict
    if row.test.worst is not None and not row.test.worst.kept:
        said += f": {row.test.worst.name} may lose {_in_points(row.test.worst.bound)}"
    group = row.test.worst_group
    if group is not None and not group.kept:
        said += f": {group.column} {group.name} may lose {drop(row.test.metric, group.bound)}"
    return said


def search_html(record: RunRecord) -> str:
    """Return what every seed's search found, and all that it tried."""
    parts = []
    for search in record.searches:
        lead = f"Seed {search.seed}: " if len(record.searches) > 1 else ""
        sentence = outcome(search)
        parts.append(f"<p>{escape(lead + (sentence if lead else sentence[0].upper() + sentence[1:]))}.</p>")
        rows = [[escape(cell) for cell in candidate_cells(search, row)] for row in search.candidates]
        parts.append(
            details("All that was tried", f"{len(rows)} candidate{'s' if len(rows) > 1 else ''}", table(HEAD, rows))
        )
    if any(search.contract for search in record.searches):
        parts.append(
            '<p class="dim">Candidates are chosen on the calibration examples and tested on the validation examples, from the '
            "costliest down until one fails, so that the confidence holds for the whole search. No test example is read before.</p>"
        )
    return "".join(parts)


def _promise(contract: ContractFacts) -> str:
    said = f"{called(contract.metric)} drops by at most {drop(contract.metric, contract.max_drop)}"
    if contract.harm is not None and contract.harm.worst_class is not None:
        said += f", no class's recall by more than {_in_points(contract.harm.worst_class)}"
    if contract.harm is not None and contract.harm.worst_group is not None:
        said += f", in no group by more than {drop(contract.metric, contract.harm.worst_group)}"
    return said


def _in_points(share: float) -> str:
    return f"{100 * share + 0.0:.2f} points"


def _percent(share: float) -> str:
    return percent(share).replace(".0 %", " %")
