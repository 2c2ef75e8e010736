"""Where do the examples come from, how are they read, and who gets which? The section ``data`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from prunus.core.endings import data_endings, in_words, own_endings
from prunus.core.files.urls.url_text import checked_url, is_url_text, scrubbed
from prunus.core.recipes.section import Finite, Fraction, Section, Share

__all__ = ["Data", "Split", "kind_of_source"]

KindOfColumn = Literal["number", "quantile", "boolean", "category", "date", "time"]


class Split(Section):
    """How the examples are shared out. What is left of 1 after validation, calibration and test is for training."""

    validation: Fraction = Field(0.15, description="for decisions: feature importance, the choice among candidates")
    calibration: Fraction = Field(0.1, description="for evidence: gradients and activations, without training on them")
    test: Fraction = Field(0.2, description="for the final numbers only; no decision sees it")
    seed: int = Field(0, ge=0)
    column: str | None = Field(
        None,
        description="a column that says train, validation, calibration or test; what it doesn't name is drawn from train",
    )
    groups: str | None = Field(
        None, description="a column whose equal values stay together in one part: a patient, a shop"
    )
    time: str | None = Field(None, description="a column of dates or numbers: train on the earlier, test on the later")
    shared: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="what becomes of examples that a part of your own has in common with another: leave_out of the weaker",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        given = [key for key in ("column", "groups", "time") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"split goes by one column: got {' and '.join(given)}; take one of them away")
        return self

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Split:
        held_out = self.validation + self.calibration + self.test
        if held_out >= 1:
            raise ValueError(
                f"validation + calibration + test must leave some for training: got {held_out:g}, must be < 1"
            )
        return self


class Data(Section):
    """Where the examples come from."""

    source: str = Field(
        description=f"a file that ends in {in_words(own_endings())}, a folder of class folders of images, sklearn:NAME, "
        "or module:function"
    )
    test: str | None = Field(
        None, description="another such source: the test set is yours, and split.test says nothing"
    )
    validation: str | None = Field(None, description="likewise")
    calibration: str | None = Field(None, description="likewise")
    target: str | None = Field(
        None, description="the label's column (CSV, Parquet) or array (npz); default: label, target or y"
    )
    columns: tuple[str, ...] | None = Field(
        None,
        description="tables: the columns that become features; default: all but the target, id and those in ignore",
    )
    ignore: tuple[str, ...] = Field((), description="tables: columns to leave out")
    kinds: dict[str, KindOfColumn] = Field(
        default_factory=dict,
        description="tables: what a column is where it isn't what it looks like: number, quantile (a number, as the share of "
        "training rows below it), boolean, category, date or time",
    )
    missing: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        (),
        max_length=100,
        description="tables: texts that mean that there is no value, beside an empty cell: ['?', NA]",
    )
    task: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,59}|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$", max_length=200)] = (
        Field(
            "auto",
            description="what is asked of the model: auto reads classification or regression off the target; any other registered "
            "task (segmentation, multilabel, language ...), or module:object of your own, needs a function as source, which gives "
            "data as they are",
        )
    )
    in_memory: bool | Literal["auto"] = Field(
        "auto",
        description="rows of Parquet, Arrow and .npy files: true holds them in memory, false trains from disk, to the same result; "
        "auto: from disk where memory would take more than 1 GiB",
    )
    cache: str | None = Field(
        None,
        description="the folder for what is read from disk, in a form that can be mapped; default: $PRUNUS_CACHE, else "
        "~/.cache/prunus",
    )
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for module:function")
    standardize: bool | None = Field(
        None,
        description="subtract the training mean and divide by the training deviation; default: only where prunus trains the "
        "model, since the scaling belongs to the model: given weights get what scale, mean and std say",
    )
    scale: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="divide inputs by this first: 255 makes pixels numbers from 0 to 1"
    )
    mean: tuple[Finite, ...] | None = Field(None, description="then subtract: a number, or one per channel or feature")
    std: tuple[Finite, ...] | None = Field(None, description="then divide by: a number, or one per channel or feature")
    check_weights: bool = Field(
        True,
        description="stop where given weights do no better than guessing, or clearly better on inputs scaled otherwise",
    )
    standardize_target: bool = Field(
        True,
        description="regression: train on targets of mean 0 and deviation 1; results are in the target's own units all the same",
    )
    split: Split = Field(default_factory=Split)
    groups: str | None = Field(
        None,
        description="a column by whose values the change from dense to pruned is shown, too: a region, an age band",
    )
    label_noise: Share = Field(
        0.0, description="flip this share of the training labels: a test of the cleaning, not a use"
    )

    @model_validator(mode="after")
    def _one_scaling(self) -> Data:
        if self.standardize and self.scales:
            raise ValueError(
                "standardize fits a scaling to the data; scale, mean and std give one: take one of the two away"
            )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be above 0: got {list(self.std)}")
        return self

    @model_validator(mode="after")
    def _columns_are_there_or_not(self) -> Data:
        for name in self.ignore:
            if name in (self.columns or ()) or name in self.kinds:
                key = "kinds" if name in self.kinds else "columns"
                raise ValueError(f"the column {name!r} is in ignore and in {key}: take it out of one of the two")
        return self

    @field_validator("source", "test", "validation", "calibration")
    @classmethod
    def _a_url_may_be_followed(cls, source: str | None) -> str | None:
        return checked_url(source) if source is not None and is_url_text(source) else source

    @field_validator("cache")
    @classmethod
    def _what_is_mapped_lies_here(cls, cache: str | None) -> str | None:
        if cache is not None and is_url_text(cache):
            raise ValueError(f"it is mapped into memory, which a URL can't be: got {scrubbed(cache)}; give a folder")
        return cache

    @property
    def beside(self) -> dict[str, str]:
        """The columns (or arrays) that say something of every example and aren't features for that, by the key that names them."""
        named = {f"split.{key}": getattr(self.split, key) for key in ("column", "groups", "time")}
        return {key: name for key, name in {**named, "groups": self.groups}.items() if name is not None}

    @property
    def about_tables(self) -> tuple[str, ...]:
        """The keys in use that only tables have."""
        return tuple(key for key in ("columns", "ignore", "kinds", "missing") if getattr(self, key))

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _one_number_for_all(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @property
    def scales(self) -> bool:
        """Whether the recipe itself gives the scaling of the inputs."""
        return self.scale != 1 or self.mean is not None or self.std is not None

    @property
    def is_bundled(self) -> bool:
        """Whether the source comes with scikit-learn, whatever lies in the current folder."""
        return kind_of_source(self.source) == "bundled"

    @property
    def is_function(self) -> bool:
        """Whether the source, if no file has this name, is the user's ``module:function``."""
        return kind_of_source(self.source) == "function"

    @property
    def own_parts(self) -> dict[str, str]:
        """The parts that have a source of their own."""
        named = {"test": self.test, "validation": self.validation, "calibration": self.calibration}
        return {part: source for part, source in named.items() if source is not None}


def kind_of_source(source: str) -> Literal["bundled", "function", "file"]:
    """Return what a source means by its text alone: nothing is opened or looked for."""
    if source.startswith("sklearn:"):
        return "bundled"
    ending = source.lower().endswith(tuple(data_endings()))
    return "function" if ":" in source and "/" not in source and not ending else "file"
