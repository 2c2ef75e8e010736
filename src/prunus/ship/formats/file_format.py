"""What must a format be able to do, for ``prunus export`` to write it and to know that the file is right?

A format only writes and reads back: which inputs are compared, that nothing half-written is left, and what is said of it, is done
once for all of them by ``ship.deploy``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from prunus.core.errors import MissingExtraError
from prunus.ship.formats.export_source import ExportSource

__all__ = ["Format", "Written"]


@dataclass(frozen=True)
class Written:
    """What a format says of the file that it wrote.

    ``zeros`` says how the zeros are used: ``"1x1"`` or ``"4x1"`` blocks by sparse kernels, or ``"no"``: all kernels are dense.
    """

    zeros: str = "no"


class Format(ABC):
    """One format: what it is called, what it needs, and how a file of it is written and asked.

    A subclass sets the class variables. ``packages`` are the modules that writing and asking need, ``free`` which sizes may vary
    in a file: the ``batch`` alone, or all ``sizes`` that vary in the bundle.
    """

    name: ClassVar[str]
    """What ``--to`` calls it; the ending of its file."""
    extra: ClassVar[str]
    """What to install: ``prunus[EXTRA]``."""
    packages: ClassVar[tuple[str, ...]]
    runs_in: ClassVar[str]
    """Which runtimes read it, for the docs and the help."""
    free: ClassVar[Literal["batch", "sizes"]]

    def check_installed(self) -> None:
        """Raise unless what writing needs is installed; nothing is imported.

        Raises:
            MissingExtraError: a package isn't there; it names the extra.
        """
        for package in self.packages:
            if find_spec(package) is None:
                raise MissingExtraError(
                    f"this needs the package {package!r}, which is not installed: pip install 'prunus[{self.extra}]'"
                )

    def check_model(self, source: ExportSource) -> None:  # noqa: B027 - most formats take any model
        """Raise if no file of this format can take or give what the model does.

        Raises:
            ModelError: it names what can't be said, and a format that can.
        """

    @abstractmethod
    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the model to ``path``, a temporary name; return what there is to say of the file.

        Raises:
            ModelError: the model can't be written in this format; it says why, in one line.
        """

    @abstractmethod
    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return the outputs of the file at ``path``, for each of some batches of inputs.

        Raises:
            ModelError: the runtime fails on it.
        """
