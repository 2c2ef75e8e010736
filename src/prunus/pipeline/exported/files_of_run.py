"""Which files for other runtimes does a run leave beside its bundle?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from prunus.core.calls import map_tensors
from prunus.core.errors import ModelError
from prunus.core.recipes.shipping.export_section import HF
from prunus.pipeline.jobs.job import Job
from prunus.report import ExportFacts
from prunus.report.format import size
from prunus.ship import export_file, format_of, load_bundle
from prunus.ship.formats.to_hf import files_beside
from prunus.ship.pretrained_entry import pretrained_entry
from prunus.ship.quantize.file_model import raw_batch

__all__ = ["check_export", "export_notes", "export_of_run"]

_REAL = 32


def check_export(job: Job, model: nn.Module) -> None:
    """Find out before anything is trained that a file can't be left.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: a package of one isn't installed.
        ModelError: a folder for transformers is wanted of a model that is none of them, or a processor that isn't there.
    """
    asked = job.recipe.export
    if asked is None:
        return
    for name in asked.to:
        format_of(name).check_installed()
    if HF not in asked.to:
        if asked.processor is not None:
            raise ModelError(f"export.processor goes along with hf: got export.to {', '.join(asked.to)}; leave it out")
        return
    if pretrained_entry(model) is None:
        raise ModelError(
            f"export: hf is a folder for transformers, whose config builds the model: got a {type(model).__name__}, which none "
            "builds; leave hf out"
        )
    if asked.processor is not None:
        list(files_beside(Path(asked.processor), "export.processor"))


def export_notes(job: Job, exports: Sequence[ExportFacts]) -> list[str]:
    """Return what whoever reads the record should know: which files were left, which not, and why the cut is as it is."""
    asked, strategy = job.recipe.export, job.recipe.strategy
    notes = [_told(one) for one in exports]
    if asked is not None and HF in asked.to and strategy is not None and strategy.expressible:
        notes.append(
            "the model leaves as a folder for transformers (export: hf), so only what its config can say was cut "
            "(strategy.expressible)"
        )
    return notes


def _told(one: ExportFacts) -> str:
    if one.problem:
        return f"there is no file for {one.format}: {one.problem}"
    how = "it doesn't run here, so nothing was compared"
    if one.difference is not None:
        how = f"its outputs are off the bundle's by {one.difference:.1e} of the largest at most"
        how += f" ({one.n_samples} real examples)" if one.n_samples else ""
    return f"{one.file} is for {one.format}: {size(one.size_bytes)}; {how}"


def export_of_run(job: Job, folder: Path) -> list[ExportFacts]:
    """Write the files, each compared with the bundle on random and on test examples; return what is to be said of each.

    One that can't be written doesn't fail the run: its facts say why.
    """
    asked = job.recipe.export
    if asked is None:
        return []
    bundle = load_bundle(folder / "bundle", trust_code=True)  # the run made it just now, by the user's own recipe
    inputs = next(iter(job.data.test.batches(_REAL))).inputs
    samples = [raw_batch(bundle, map_tensors(lambda value: value.cpu(), inputs))]
    found = []
    with job.workspace.stage("export"):
        for name in asked.to:
            form = format_of(name)
            path = folder / form.beside_bundle
            beside = Path(asked.processor) if asked.processor is not None and form.takes_processor else None
            try:
                made = export_file(bundle, name, path, samples=samples, beside=beside)
            except ModelError as error:
                job.workspace.warn("export", f"{name}: {error}")
                found.append(ExportFacts(format=name, problem=str(error)))
                continue
            facts = made.to_dict()
            told = {key: facts[key] for key in ("size_bytes", "difference", "n_samples", "note")}
            found.append(ExportFacts(format=name, file=path.name, **told))
    return found
