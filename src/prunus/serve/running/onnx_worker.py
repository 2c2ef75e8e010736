"""How is a bundle exported without holding up a server that answers meanwhile?

``python -m prunus.serve.running.onnx_worker BUNDLE FILE [--trust-code]`` is a process of its own: torch's exporter is Python code
that takes seconds, and the memory that it takes goes with it. The last line of its output is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prunus.core.errors import PrunusError

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Export a bundle; return 0 if it was, or why it wasn't was said as JSON."""
    folder, file, *rest = arguments
    said: dict[str, object]
    try:
        from prunus.ship import export_file, load_bundle

        bundle = load_bundle(Path(folder), trust_code="--trust-code" in rest)
        made = export_file(bundle, "onnx", Path(file))
        said = {"sha256": bundle.sha256, "difference": made.difference, "note": made.note}
    except PrunusError as error:
        said = {"error": type(error).__name__, "message": str(error), "code": error.exit_code}
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
