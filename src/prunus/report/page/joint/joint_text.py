"""How is it told which shares of the data and of the model do no worse together than all of both?"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from prunus.report.format import amount, called, difference, is_share, value
from prunus.report.record_gate import JointCell, JointFacts
from prunus.report.record_parts import Number
from prunus.report.text_tables import add_row, plain_table, show_table

__all__ = [
    "apart",
    "axes",
    "in_points",
    "joint_how",
    "joint_line",
    "parameters_left",
    "place_called",
    "print_joint",
    "row_called",
    "short",
]

_COSTS = {"latency": "latency", "params": "parameters", "macs": "MACs", "bytes": "bytes"}


def joint_line(facts: JointFacts) -> str:
    """Return which cells were shown to be no worse, and which of them is the smallest."""
    places = [(i, j) for i, row in enumerate(facts.cells) for j, _ in enumerate(row) if (i, j) != (0, 0)]
    kept = [at for at in places if facts.cells[at[0]][at[1]].kept]
    margin = f"by more than {_amount(facts, facts.max_drop)} ({100 * facts.confidence:g} % together)"
    if kept:
        said = "; ".join(place_called(facts, *at) for at in kept)
        assert facts.smallest is not None
        if len(kept) == 1:
            return f"no worse than all of both {margin}: {said}, and nothing else"
        return f"no worse than all of both {margin}: {said}. The smallest: {place_called(facts, *facts.smallest)}"
    if not places:
        return "nothing but all of both was measured"
    # What follows in a row wasn't shown because of the cell before it, whatever its own interval.
    ends = [next(((i, j) for j, cell in enumerate(row) if not cell.kept), None) for i, row in enumerate(facts.cells)]
    nearest = min((at for at in ends if at is not None), key=lambda at: _bound(facts, facts.cells[at[0]][at[1]]))
    bound = _bound(facts, facts.cells[nearest[0]][nearest[1]])
    return (
        f"nothing smaller is shown to be no worse than all of both {margin}; the nearest, {place_called(facts, *nearest)}, may be "
        f"worse by {_amount(facts, bound)}. More seeds or validation examples narrow the intervals"
    )


def joint_how(facts: JointFacts) -> str:
    """Return on what the grid was measured."""
    n = len(facts.seeds)
    over = f"mean over {n} seeds" if n > 1 else "one seed: says nothing about other seeds"
    epochs = {spent for row in facts.cells for cell in row for spent in cell.epochs_after}
    steps = (
        "as many steps in each cell"
        if len(epochs) == 1
        else "not as many steps in each cell (epochs_after in the record)"
    )
    return f"{called(facts.metric)} on {facts.n_validation} validation examples, {over}, {steps}"


def print_joint(facts: JointFacts, console: Console) -> None:
    """Print the grid, how far each cell is from all of both, and which are no worse."""
    console.print(Text(f"Data and model together: {joint_how(facts)}", style="bold"))
    told = f"under each value its difference from all of both{in_points(facts)}; {axes(facts)}"
    console.print(Text(told, style="dim"))
    heads = (f"{share:g} ({parameters_left(facts, j)})" for j, share in enumerate(facts.model))
    table = plain_table("", "", *heads)
    for i, row in enumerate(facts.cells):
        marked = (f"{value(facts.metric, cell.mean)}{' *' if cell.kept and cell.difference else '  '}" for cell in row)
        add_row(table, row_called(facts, i), *marked)
        add_row(table, "", *(Text(f"{short(facts, cell)}  ", style="dim") for cell in row))
    show_table(table, console)
    console.print(Text(f"* {joint_line(facts)}" if facts.smallest else joint_line(facts)))


def axes(facts: JointFacts) -> str:
    """Return what rows and columns are."""
    what = "keep_fraction" if facts.model_is == "keep_fraction" else f"share of {_COSTS[facts.model_is]}"
    return f"rows: share of the data (examples); columns: {what} of the model (share of its parameters)"


def in_points(facts: JointFacts) -> str:
    """Return the unit of differences, where they have one."""
    return ", in points" if is_share(facts.metric) else ""


def row_called(facts: JointFacts, i: int) -> str:
    """Return what a row is: the share of the data that stays, and how many examples."""
    few, most = min(facts.data[i].n), max(facts.data[i].n)
    return f"{_share(facts.data[i].kept)} ({amount(few)}{f' to {amount(most)}' if few < most else ''})"


def place_called(facts: JointFacts, i: int, j: int) -> str:
    """Return which cell is meant."""
    return f"{_share(facts.data[i].kept)} of the data with {_share(facts.cells[i][j].parameters)} of the parameters"


def apart(facts: JointFacts, cell: JointCell) -> str:
    """Return how far a cell is from all of both, with its interval."""
    if cell.difference is None:
        return "what the others are compared with"
    return difference(facts.metric, Number(name=facts.metric, **cell.difference.model_dump()))


def short(facts: JointFacts, cell: JointCell) -> str:
    """Return the difference without its unit."""
    return apart(facts, cell).replace(" points", "") if cell.difference is not None else ""


def parameters_left(facts: JointFacts, j: int) -> str:
    """Return which share of the parameters a column leaves: in two numbers where rows differ."""
    left = [row[j].parameters for row in facts.cells]
    return _share(left[0]) if max(left) - min(left) < 0.01 else f"{_share(min(left))} to {_share(max(left))}"


def _bound(facts: JointFacts, cell: JointCell) -> float:
    if cell.difference is None:
        return 0.0
    return -cell.difference.low if facts.higher_is_better else cell.difference.high


def _amount(facts: JointFacts, number: float) -> str:
    return f"{100 * number:.3g} points" if is_share(facts.metric) else f"{number:.3g}"


def _share(number: float) -> str:
    """Return a share in whole percent, or with a decimal where that says nothing.

    >>> _share(0.7998), _share(0.027), _share(1.0)
    ('80 %', '2.7 %', '100 %')
    """
    return f"{100 * number:.0f} %" if number >= 0.1 else f"{100 * number:.2g} %"
