"""How does a bundle's model become a folder that ``from_pretrained`` of transformers loads and ``pipeline`` runs?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.files.plain_files import write_json
from prunus.ship.bundle import Bundle
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written
from prunus.ship.formats.loaded_folder import ANSWERS, INPUTS
from prunus.ship.inputs import is_scaled
from prunus.ship.manifest import GRAPH_TENSORS, WEIGHTS, Manifest, read_contents
from prunus.ship.pack import unpack
from prunus.ship.pretrained_entry import PretrainedEntry

__all__ = ["Hf", "files_beside"]

_BESIDE = (".json", ".jinja", ".txt", ".model", ".spm", ".bpe", ".vocab", ".tiktoken")
"""How files of tokenizers and processors end; none of them is code or a pickle."""
_OURS = ("config.json", "generation_config.json")
_LARGEST = 256 * 2**20


class Hf(Format):
    """Of a model of transformers whose config says its sizes; files of its tokenizer or processor go along."""

    name = "hf"
    extra = "hf"
    packages = ("transformers",)
    runs_in = "transformers: `from_pretrained` and `pipeline`"
    free = "sizes"
    files = ("config.json", "model.safetensors")
    takes_processor = True

    def others(self, folder: Path) -> list[str]:
        """Return what isn't a model's own file or one of its processor; all of it, where no model lies there."""
        names = {each.name: each for each in folder.iterdir()}
        own = [
            n
            for n, each in names.items()
            if n.endswith((*_BESIDE, ".safetensors")) and not each.is_symlink() and each.is_file()
        ]
        return sorted(names.keys() - (own if self.files[0] in own else []))

    def check_model(self, source: ExportSource) -> None:
        """Raise unless the bundle knows its class of transformers, and nothing is scaled outside of it."""
        if source.bundle.manifest.pretrained is None:
            raise ModelError(_why_not(source.bundle.manifest))
        if is_scaled(source.takes) and source.bundle.scaler is not None and source.bundle.scaler.scales:
            raise ModelError(
                "the bundle scales its inputs, and a folder of transformers doesn't: train on inputs as they are "
                "(data: {standardize: false}), with a processor that does the rest"
            )
        if source.bundle.target_scaler is not None and source.bundle.target_scaler.scales:
            raise ModelError(
                "the bundle scales its outputs, and a folder of transformers doesn't: train on targets as they are "
                "(data: {standardize_target: false})"
            )

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the folder."""
        model = _built(source.bundle)
        model.save_pretrained(path)
        beside = [] if source.beside is None else list(files_beside(source.beside))
        for file in beside:
            shutil.copyfile(file, path / file.name)
        entry = source.bundle.manifest.pretrained
        assert entry is not None
        return Written(
            version=f"transformers {version('transformers')}",
            note="; ".join(_notes(entry, [file.name for file in beside])),
        )

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what a new process answers that loads the folder, with no network and nothing of this one."""
        work = path.with_name(f"{path.name}.check")
        work.mkdir()
        try:
            torch.save(list(batches), work / INPUTS)
            command = [sys.executable, "-m", "prunus.ship.formats.loaded_folder", str(path), str(work)]
            offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
            done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
            if done.returncode:
                said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it says nothing")
                raise ModelError(f"the folder doesn't load in a new process: {said.strip()[:300]}; nothing was written")
            answers: list[list[Tensor]] = torch.load(work / ANSWERS, weights_only=True)
            return answers
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _built(bundle: Bundle) -> Any:
    """Return the model as its class of transformers, with the bundle's own weights and labels."""
    import transformers

    entry, folder = bundle.manifest.pretrained, bundle.folder
    assert entry is not None
    assert folder is not None
    kind: Any = getattr(transformers, entry.class_name, None)
    is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not is_model:
        raise ModelError(
            f"transformers {transformers.__version__} has no model {entry.class_name!r}: install the one that it was made with"
        )
    contents = read_contents(folder, sha256=bundle.sha256)
    state = unpack(contents.files[WEIGHTS], bundle.manifest.tensors, folder / WEIGHTS)
    state = {name: value for name, value in state.items() if not name.startswith(GRAPH_TENSORS)}
    try:
        with tempfile.TemporaryDirectory() as beside:  # read as from a file, numbers that aren't finite are words there
            write_json(Path(beside) / "config.json", _labelled(entry.config, bundle.manifest.class_names))
            config = kind.config_class.from_json_file(str(Path(beside) / "config.json"))
        model: Any = kind(config).eval()
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(state[name].dtype)
        model.load_state_dict(state, strict=True)
        if entry.generation is not None:
            model.generation_config = transformers.GenerationConfig.from_dict(entry.generation)
    except Exception as error:  # whatever a constructor raises at a config that it doesn't like
        raise_if_out_of_memory(error)
        raise ModelError(
            f"{entry.class_name} can't be built from the bundle's config: {(str(error).splitlines() or [''])[0][:200]}; make the "
            "bundle anew with this version of transformers"
        ) from error
    return model


def _labelled(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a config whose labels are called as the bundle's classes, where it has names of its own for none."""
    labels = config.get("id2label")
    known = labels if isinstance(labels, dict) else {}
    plain = all(str(value) == f"LABEL_{key}" for key, value in known.items())
    if not plain or len(known) != len(names) or all(name.isdecimal() for name in names):
        return dict(config)
    return {**config, "id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def files_beside(folder: Path, said: str = "--processor") -> Iterator[Path]:
    """Yield the files of a tokenizer or a processor in a model's folder.

    Args:
        said: what names the folder, for messages.

    Raises:
        ModelError: there is no such folder, or none in it.
    """
    if not folder.is_dir():
        raise ModelError(f"{said} must be the folder of the model that was pruned: got {str(folder)!r}, which is none")
    found = [
        file
        for file in sorted(folder.iterdir())
        if file.name.endswith(_BESIDE)
        and file.name not in _OURS
        and not file.name.endswith(".index.json")
        and not file.name.startswith((".", "adapter_", "README"))
        and file.is_file()
        and file.stat().st_size <= _LARGEST
    ]
    if not found:
        raise ModelError(
            f"{said}: no file of a tokenizer or a processor lies in {folder}; give the folder that has them"
        )
    yield from found


def _notes(entry: PretrainedEntry, beside: Sequence[str]) -> Iterator[str]:
    if beside:
        yield f"along go {', '.join(beside)}"
    else:
        yield "no tokenizer or processor goes along, which pipeline() needs: give --processor FOLDER"
    uneven = [
        name
        for name, value in entry.config.items()
        if isinstance(value, list) and len(value) > 1 and all(type(one) is int for one in value) and len(set(value)) > 1
    ]
    depth = entry.config.get("num_hidden_layers")
    if by_layer := [name for name in uneven if len(entry.config[name]) == depth]:
        yield f"layers differ in {', '.join(by_layer)}: vLLM and llama.cpp take one number for all layers, don't load it there"
    else:
        yield "one number holds for all layers, as vLLM and llama.cpp want it"


def _why_not(manifest: Manifest) -> str:
    """Say why a bundle is no folder of transformers."""
    advice = (
        "prune with strategy.expressible: true (prunus.prune(..., expressible=True)), which cuts what a config can say, and bundle "
        "that; transformers, vLLM and llama.cpp take one number for all layers"
    )
    shapes: dict[str, dict[tuple[int, ...], None]] = {}
    for name, entry in manifest.tensors.items():
        shapes.setdefault(re.sub(r"\.\d+\.", ".*.", name), {})[entry.shape] = None
    uneven = next((family for family, found in shapes.items() if len(found) > 1 and "*" in family), None)
    if uneven is None:
        return f"the bundle knows no class of transformers whose config builds these sizes: if its model is of one, {advice}"
    sizes = " and ".join(" x ".join(map(str, shape)) for shape in list(shapes[uneven])[:2])
    return f"the bundle knows no config that says its sizes: {uneven} is {sizes}; {advice}"
