"""What must a format be able to do, for ``prunus export`` to write it and to know that the file is right?

A format only writes and reads back: which inputs are compared, that nothing half-written is left, and what is said of it, is done
once for all of them by ``ship.deploy``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from prunus.core.code.extras import check_there
from prunus.ship.formats.export_source import ExportSource

__all__ = ["Format", "Written"]


@dataclass(frozen=True)
class Written:
    """What a format says of the file that it wrote.

    ``version`` is that of the format, such as the opset. ``zeros`` says how the zeros are used: ``"1x1"`` or ``"4x1"`` blocks by
    sparse kernels, or ``"no"``: all kernels are dense. ``note`` is what whoever takes the file should know.
    """

    version: str
    zeros: str = "no"
    note: str = ""


class Format(ABC):
    """One format: what it is called, what it needs, and how a file of it is written and asked.

    A subclass sets the class variables; those with a value here need not be set.
    """

    name: ClassVar[str]
    """What ``--to`` calls it."""
    ending: ClassVar[str] = ""
    """What its files end in, if that isn't its name."""
    extra: ClassVar[str] = ""
    """What to install, ``prunus[EXTRA]``; nothing where torch is enough."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The modules that writing and asking need."""
    runs_in: ClassVar[str]
    """Which runtimes read it, for the docs."""
    free: ClassVar[Literal["none", "batch", "bounded", "sizes"]]
    """What may vary in a file: nothing (it takes one example), the batch, or all sizes of the bundle, with bounds of its own."""
    files: ClassVar[tuple[str, ...]] = ()
    """What lies in it, where it is a folder."""
    is_executable: ClassVar[bool] = False
    """Whether its loader runs code that a file may hold."""
    takes_processor: ClassVar[bool] = False
    """Whether files of a tokenizer or a processor go along."""

    @property
    def beside_bundle(self) -> str:
        """What a run calls the file that it leaves beside its bundle."""
        return f"bundle.{self.ending or self.name}"

    def runs_here(self) -> bool:
        """Tell whether a file of it can be run on this system, with what ``packages`` name."""
        return True

    def others(self, folder: Path) -> list[str]:
        """Return the names of what lies in a folder that no export left there, where it is a folder."""
        return sorted({each.name for each in folder.iterdir()} - set(self.files))

    def check_installed(self) -> None:
        """Raise unless what writing needs is installed; nothing is imported.

        Raises:
            MissingExtraError: a package isn't there; it names the extra.
        """
        check_there(self.packages, extra=self.extra)

    def check_model(self, source: ExportSource) -> None:  # noqa: B027 - most formats take any model
        """Raise if no file of this format can take or give what the model does.

        Raises:
            ModelError: it names what can't be said, and a format that can.
        """

    @abstractmethod
    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the model to ``path``, a temporary name, an empty folder where ``files`` lie in one; return what to say of it.

        Raises:
            ModelError: the model can't be written in this format; it says why, in one line.
        """

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return the outputs of the file at ``path``, for each of some batches of inputs, if it ``runs_here``.

        Raises:
            ModelError: the runtime fails on it.
        """
        raise NotImplementedError

    def inspect(self, source: ExportSource, path: Path) -> tuple[str, ...]:
        """Return what was found right about the file at ``path`` without running it, if it doesn't run here.

        Raises:
            ModelError: inputs, outputs, shapes or weights aren't those of the model.
        """
        raise NotImplementedError
