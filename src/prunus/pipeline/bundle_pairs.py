"""Which bundle is measured, and beside which dense model: the one that it came from, or another of its kind?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prunus.core.errors import BundleError
from prunus.pipeline.shipping import bundle_folder, check_made_there, dense_folder
from prunus.ship import Bundle, load_bundle

__all__ = ["load_checked", "open_dense"]

Note = Callable[[str], None] | None


def load_checked(folder: Path, trust_code: bool, note: Note) -> Bundle:
    """Return a bundle; one in a run's folder has to be the one that the run made."""
    bundle = load_bundle(folder, trust_code=trust_code)
    check_made_there(folder, bundle.sha256)
    if bundle.note and note is not None:
        note(f"{folder}: {bundle.note}")
    return bundle


def open_dense(
    folder: Path, bundle: Bundle, dense: Path | None, trust_code: bool, note: Note
) -> tuple[Path, Bundle] | None:
    """Return where the dense model's bundle lies, and it: the one that is named, or the run's own beside; None without one.

    Raises:
        BundleError: it is damaged, or not of the same kind.
    """
    beside = dense_folder(folder) if dense is None else bundle_folder(dense)
    if beside is None:
        return None
    other = load_checked(beside, trust_code, note)
    _check_pair(folder, bundle, beside, other)
    return beside, other


def _check_pair(folder: Path, bundle: Bundle, beside: Path | None, dense: Bundle) -> None:
    """Refuse two bundles that don't take the same inputs, encoded and scaled alike, for the same answers."""
    pairs = {
        "task": (bundle.task, dense.task),
        "classes": (bundle.class_names, dense.class_names),
        "columns": (bundle.columns, dense.columns),
        "features": (bundle.feature_names, dense.feature_names),
        "inputs": (bundle.input_shape, dense.input_shape),
    }
    for what, (one, two) in pairs.items():
        if one != two:
            raise BundleError(
                f"{folder} and {beside} can't be compared: their {what} differ; expected the dense model of the same run, got "
                f"{_said(two)} beside {_said(one)}"
            )
    for what, ours, theirs in (
        ("scaling of inputs", bundle.scaler, dense.scaler),
        ("scaling of targets", bundle.target_scaler, dense.target_scaler),
    ):
        if (ours is None) != (theirs is None) or (ours is not None and theirs is not None and not _alike(ours, theirs)):
            raise BundleError(
                f"{folder} and {beside} can't be compared: their {what} differs; expected the dense model of the same run"
            )


def _alike(one: object, two: object) -> bool:
    return all(bool((getattr(one, key) == getattr(two, key)).all()) for key in ("mean", "deviation"))


def _said(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
