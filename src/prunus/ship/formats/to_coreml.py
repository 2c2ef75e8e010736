"""How does a bundle's model become a package of Core ML, and what can be known of it where Core ML isn't?

Core ML runs on Apple's systems only. Elsewhere the package is read back: inputs with the sizes that they may have, outputs,
operations, and whether all weights are there and finite. That says nothing of what it answers.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prunus.core.errors import ModelError
from prunus.ship.formats.converter import convert, work
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written

__all__ = ["CoreMl"]

_TYPES = {"float32": "float32", "float16": "float16", "int32": "int32", "int64": "int32"}
"""What Core ML takes for what the model takes; its whole numbers have 32 bits."""


class CoreMl(Format):
    """Of models that take floats or whole numbers; every free size has a bound."""

    name = "coreml"
    ending = "mlpackage"
    extra = "coreml"
    packages = ("coremltools",)
    runs_in = "Core ML on macOS 14, iOS 17 and later"
    free = "bounded"
    files = ("Data", "Manifest.json", "executorch_debug_handle_mapping.json")

    def runs_here(self) -> bool:
        """Tell that outputs are compared nowhere: they could be on macOS, where nobody has tried this."""
        return False

    def check_model(self, source: ExportSource) -> None:
        """Raise where an input is of a type that Core ML hasn't got."""
        for name, entry in zip(source.names, source.takes, strict=True):
            if entry.dtype not in _TYPES:
                raise ModelError(
                    f"Core ML takes no {entry.dtype} (it takes {', '.join(sorted(_TYPES))}), as the input {name!r} is"
                )

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the package."""
        inputs = [
            {
                "name": name,
                "shape": [2, *entry.shape],
                "spans": [[span.least, span.most, span.name] for span in spans],
                "dtype": _TYPES[entry.dtype],
            }
            for name, entry, spans in zip(source.names, source.takes, source.spans, strict=True)
        ]
        n = source.n_outputs
        outputs = ["output"] if n == 1 else [f"output_{number}" for number in range(n)]
        told = json.dumps({"inputs": inputs, "outputs": outputs})
        convert(source, "coreml", "Core ML", path, ending=self.ending, told=told)
        return Written(version=f"Core ML program for iOS 17, by coremltools {version('coremltools')}")

    def inspect(self, source: ExportSource, path: Path) -> tuple[str, ...]:
        """Return what was found right in the package."""
        found = _read(path)
        expected = dict(zip(source.names, ([[s.least, s.most] for s in spans] for spans in source.spans), strict=True))
        if wrong := [name for name, bounds in found["inputs"].items() if expected.get(name) != bounds]:
            name = wrong[0]
            raise ModelError(
                f"the package's input {name!r} may have the sizes {found['inputs'][name]}: expected {expected.get(name)}"
            )
        if len(found["outputs"]) != source.n_outputs:
            raise ModelError(f"the package gives {len(found['outputs'])} outputs, and the model {source.n_outputs}")
        if not found["n_operations"] or not found["finite"]:
            raise ModelError("the package has no operations, or weights that are infinite or NaN")
        return (
            f"{len(found['inputs'])} of {len(expected)} inputs with their sizes",
            f"{len(found['outputs'])} outputs",
            f"{found['n_operations']} operations",
            f"{found['n_weights']} numbers of weights, all finite",
        )


def _read(path: Path) -> dict[str, Any]:
    """Return what lies in a package, as coremltools reads it."""
    with TemporaryDirectory() as name:
        link, facts = Path(name) / "model.mlpackage", Path(name) / "facts.json"
        link.symlink_to(path.resolve())  # its reader wants this ending
        said = work("read_coreml", str(link), str(facts))
        if not facts.exists():
            raise ModelError(f"coremltools doesn't read what it wrote: {said[-1][:200] if said else 'it says nothing'}")
        read: dict[str, Any] = json.loads(facts.read_text())
        return read
