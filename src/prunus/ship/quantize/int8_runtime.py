"""What must a runtime be able to do, so that a model may leave for it in 8-bit whole numbers and be tested there?

A runtime has a file of its own, ``F``, held in memory until it is known to keep its promise: how it is made from a bundle, made
int8 layer by layer, asked, and written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.core.code.extras import check_there
from prunus.evaluate.timing.bench_runtimes import Subject
from prunus.ship.bundle import Bundle

__all__ = ["F", "Feed", "Int8", "Int8Runtime", "Method"]

F = TypeVar("F", bound=Sized)
"""A file of the runtime, whose length is its size in bytes."""
Feed = Mapping[str, NDArray[Any]]
Method = Literal["static", "dynamic"]


class Int8(ABC, Generic[F]):
    """One model on its way from float to int8 files of it; ``layers`` are those that may be int8, by name."""

    method: Method
    layers: tuple[str, ...]

    @abstractmethod
    def of_all_but(self, in_float: Collection[str]) -> F:
        """Return the file with every layer in int8 but those named."""

    @abstractmethod
    def of_only(self, layer: str) -> F:
        """Return the file with one layer in int8."""


class Int8Runtime(ABC, Generic[F]):
    """One runtime that has int8."""

    name: ClassVar[str]
    """The format of its files, as ``prunus export --to`` calls it."""
    called: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]

    @property
    def beside_bundle(self) -> str:
        """What a run calls the file that it leaves beside its bundle."""
        return f"bundle.int8.{self.name}"

    def check_installed(self, what: str) -> None:
        """Raise unless all packages are there; nothing is imported.

        Raises:
            MissingExtraError: one isn't; it names the extra.
        """
        check_there(self.packages, extra="int8", what=what)

    @abstractmethod
    def float_file(self, bundle: Bundle) -> F:
        """Return a bundle's model as a file in float, which answers as the bundle does.

        Raises:
            ModelError: it can't be exported.
        """

    @abstractmethod
    def prepared(self, file: F) -> F:
        """Return a file as the quantiser wants it; its answers are the same."""

    @abstractmethod
    def int8(self, ready: F, asked: Literal["auto", "static", "dynamic"], feeds: Sequence[Feed]) -> Int8[F]:
        """Return what makes int8 files of a prepared one.

        Args:
            asked: how the ranges of activations are found; auto is what suits the model.
            feeds: batches of raw calibration inputs by name; those that the file doesn't take are left out.

        Raises:
            ModelError: the model can't be int8.
            RecipeError: the runtime hasn't got that method.
        """

    @abstractmethod
    def session(self, file: F) -> Callable[[Any], list[Tensor]]:
        """Return what answers raw inputs with all outputs of a file."""

    @abstractmethod
    def timed(self, file: F, example: Any, model: nn.Module | None) -> Subject:
        """Return a file as what is timed.

        Args:
            example: two or more raw examples.
            model: what the file is of, where it is in float: other runtimes are then timed on it, too.
        """

    @abstractmethod
    def write(self, file: F, path: Path) -> None:
        """Write a file in one step.

        Raises:
            OutputError: it can't be written there.
        """
