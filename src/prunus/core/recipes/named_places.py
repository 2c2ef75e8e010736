"""Is there what a name points to? Asked before anything heavy is imported, so that a typo is answered at once.

The readers ask again: what is there now may be gone when it is read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from prunus.core.code.imports import current_folder_importable, is_reference
from prunus.core.endings import data_endings, in_words
from prunus.core.errors import BundleError, DataError, ModelError, PlanError, PrunusError, RecipeError, WeightsError
from prunus.core.files.near_paths import near_path
from prunus.core.files.urls.store import nothing_at
from prunus.core.files.urls.url_path import is_url, path_at, refuse_url
from prunus.core.recipes.recipe import Recipe

__all__ = [
    "check_bundle",
    "check_inputs_file",
    "check_recipe",
    "check_recording",
    "check_shards",
    "check_source",
    "check_table",
    "check_weights",
    "local_places",
    "missing_data",
]


def check_recipe(recipe: Recipe) -> None:
    """Check that the files and modules that a recipe names are there; none of them is read or imported.

    Raises:
        DataError: the data, or a recording, aren't there.
        WeightsError: the weights aren't there.
        ModelError: the module of the builder isn't there.
        PlanError: the table of examples isn't there.
        RecipeError: the module of a loss, a task or a metric isn't there.
    """
    for source in (recipe.data.source, *recipe.data.own_parts.values()):
        check_source(source)
    examples = recipe.examples
    local = {"model.weights": recipe.model.weights}
    if recipe.export is not None:
        local["export.processor"] = recipe.export.processor
    if examples is not None:
        local |= {"examples.plan": examples.plan, "examples.recording": examples.recording}
    for key, path in local.items():
        if path is not None:
            refuse_url(path_at(path), key, "copy it to this machine, and give that path")
    if recipe.model.weights is not None:
        check_weights(Path(recipe.model.weights))
    if recipe.examples is not None and recipe.examples.plan is not None:
        check_table(Path(recipe.examples.plan), Path(recipe.output))
    if recipe.examples is not None and recipe.examples.recording is not None:
        check_recording(Path(recipe.examples.recording))
    _check_module(recipe.model.builder, ModelError)
    named = [
        ("train.loss", recipe.train.loss),
        ("recovery.loss", recipe.recovery.loss),
        ("data.task", recipe.data.task),
    ]
    for key, name in (
        *named,
        *(("evaluation.metrics", name) for name in filter(is_reference, recipe.evaluation.metrics)),
    ):
        if name is not None:
            _check_module(name, RecipeError, f"{key} ")


def local_places(recipe: Recipe) -> tuple[Path, ...]:
    """Return the paths that a recipe names and reads; what is no path, such as ``sklearn:NAME``, is among them, too."""
    examples = recipe.examples
    named = [recipe.data.source, *recipe.data.own_parts.values(), recipe.model.weights]
    if examples is not None:
        named += [examples.plan, examples.recording]
    return tuple(path_at(name) for name in named if name is not None)


def check_source(source: str) -> None:
    """Check that the file, the folder or the module that ``data.source`` means is there.

    Raises:
        DataError: it isn't; the message suggests a near name.
    """
    path = path_at(source)
    if path.exists():
        return
    if is_url(path):
        raise missing_data(path)
    scheme, colon, _ = source.partition(":")
    if not colon or "/" in source or path.suffix.lower() in data_endings():
        raise missing_data(path)
    if scheme != "sklearn":
        _check_module(source, DataError)


def check_inputs_file(path: Path) -> None:
    """Check that inputs to predict on are there.

    Raises:
        DataError: they aren't; the message suggests a near name.
    """
    if not path.exists():
        raise missing_data(path)


def check_weights(path: Path) -> None:
    """Check that a weight file is there.

    Raises:
        WeightsError: it isn't.
    """
    if not path.is_file():
        raise WeightsError(
            f"there is no weight file {path}; "
            f"{near_path(path) or 'give a .safetensors file, or a .pt that holds a state dict'}"
        )


def check_table(path: Path, output: Path) -> None:
    """Check that a table of examples is there, and that the run that reads it doesn't throw it away.

    Raises:
        PlanError: it isn't.
        RecipeError: it lies in the part of the output folder that the run writes anew.
    """
    if not path.is_file():
        raise PlanError(
            f"examples.plan: there is no table of examples at {path}; "
            f"{near_path(path) or 'prunus clean RECIPE writes one'}"
        )
    if path.resolve().is_relative_to((output / "plan").resolve()):
        raise RecipeError(
            f"examples.plan: {path} lies in the plan of this run's output folder, which is written anew: copy it to another place, "
            "or choose another output folder"
        )


def check_recording(path: Path) -> None:
    """Check that a recording of a training is there.

    Raises:
        DataError: it isn't; the message suggests a near name.
    """
    if not (path / "header.json").is_file():
        raise DataError(
            f"there is no recording of a training at {path}; {near_path(path) or 'prunus.Recording, or prunus score, writes one'}"
        )


def check_bundle(path: Path) -> None:
    """Check that a bundle, or a run that has one, is at ``path``.

    Raises:
        BundleError: there is none.
    """
    if not any((folder / "manifest.json").is_file() for folder in (path, path / "bundle")):
        what = "it is a file" if path.is_file() else "there is no such folder"
        if path.is_dir():
            what = "it has no manifest.json"
        if any((place / "sizes.json").is_file() for place in (path, path / "sizes")):
            raise BundleError(
                f"no bundle at {path}: it holds several sizes: say which with --size KEEP_FRACTION, or give its folder (keep-...)"
            )
        raise BundleError(
            f"no bundle at {path}: {what}; {near_path(path) or 'give the folder of a bundle, or of a finished run'}"
        )


def check_shards(folder: Path) -> None:
    """Check that a folder of shards is there.

    Raises:
        WeightsError: it isn't.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"{folder}: expected a folder with .safetensors files: got {'a file' if folder.exists() else 'nothing'}; "
            f"{near_path(folder) or 'give the folder that holds them'}"
        )


def missing_data(path: Path) -> DataError:
    """Return the error that says which data aren't there, and what may have been meant."""
    if is_url(path):
        return DataError(f"{path}: {nothing_at(str(path))}; give the URL of one")
    hint = near_path(path) or (
        f"give a file that ends in {in_words()}, a folder of class folders of images, sklearn:NAME or module:function"
    )
    return DataError(f"{path}: there is no such file or folder; {hint}")


def _check_module(reference: str, error: type[PrunusError], key: str = "") -> None:
    """Look for the outermost package of ``module:function``; names of built-ins, and what is no name, are left to the reader."""
    module, colon, _ = reference.partition(":")
    outermost = module.split(".")[0]
    if not colon or not outermost.isidentifier():
        return
    with current_folder_importable():
        try:
            found = importlib.util.find_spec(outermost) is not None
        except (ImportError, ValueError):  # a module that is half there: importing it will say more
            return
    if not found:
        raise error(
            f"{key}{reference!r}: there is no module {outermost!r}; it is looked for in {Path.cwd()} and among the installed "
            "packages"
        )
