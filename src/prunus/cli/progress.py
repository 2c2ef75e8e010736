"""How is a run's progress shown: as bars with the time left on a terminal, as plain lines when piped?"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from prunus.core.events import Event
from prunus.core.text import plain

__all__ = ["Display"]


class Display:
    """A listener that draws on standard error, so that standard output stays for results.

    On a terminal each stage has a bar; elsewhere its start and its end are a line each.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._tasks: dict[str, TaskID] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal and not self.quiet:
            self._progress = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("[dim]{task.fields[fact]}"),
                TimeElapsedColumn(),
                TextColumn("[dim]left"),
                TimeLeft(compact=True),
                console=self.console,
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "warning":
            self.console.print(f"[yellow]warning[/] {_safe(event)}", highlight=False)
        elif self.quiet:
            return
        elif self._progress is not None:
            self._draw(event, self._progress)
        elif event.kind == "end":
            took = f" in {event.facts['seconds']:.1f} s" if "seconds" in event.facts else ""
            self.console.print(f"{event.stage}: done{took}", highlight=False, markup=False)
        elif event.kind == "note":
            self.console.print(_safe(event), highlight=False)

    def _draw(self, event: Event, progress: Progress) -> None:
        if event.kind == "note":
            progress.console.print(f"[dim]{_safe(event)}[/]", highlight=False)
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = progress.add_task(event.stage, total=None, fact="")
        task = self._tasks[event.stage]
        if event.kind == "progress":
            fact = "  ".join(f"{key} {value:.3g}" for key, value in event.facts.items() if isinstance(value, float))
            progress.update(task, completed=event.done, total=event.total, fact=fact)
        elif event.kind == "end":
            total = progress.tasks[progress.task_ids.index(task)].total or 1
            progress.update(task, completed=total, total=total)


def _safe(event: Event) -> str:
    """Return what an event says as markup in which no name is one, or steers the terminal."""
    return escape(plain(f"{event.stage}: {event.message}"))
