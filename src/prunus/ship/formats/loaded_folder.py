"""What does a folder of transformers answer in a process that knows nothing else?

Run as ``python -m prunus.ship.formats.loaded_folder FOLDER WORK``: inputs lie in ``WORK``, and answers are left there. What is
wrong is the last line on the error stream.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prunus.core.errors import raise_if_out_of_memory

__all__ = ["ANSWERS", "INPUTS"]

INPUTS, ANSWERS = "inputs.pt", "answers.pt"
_PROCESSORS = ("AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor")
_MODEL = ("config.json", "generation_config.json")


def main(folder: Path, work: Path) -> None:
    """Load the model and what goes along with it, and leave the model's answers."""
    import torch
    import transformers

    from prunus.core.calls import call
    from prunus.core.structures.forms import tensors_of

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, loading = getattr(transformers, name).from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    if odd := sorted(
        str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in loading[kind]
    ):
        sys.exit(f"{name} has other weights than lie there: {', '.join(odd[:3])}")
    if any(file.name not in _MODEL and not file.name.startswith("model") for file in folder.iterdir()):
        _check_processor(transformers, folder)
    batches = torch.load(work / INPUTS, weights_only=True)
    with torch.no_grad():
        torch.save([tensors_of(call(model.eval(), inputs)) for inputs in batches], work / ANSWERS)


def _check_processor(transformers: Any, folder: Path) -> None:
    """End with a line unless the files of a tokenizer or processor load."""
    problems = []
    for auto in _PROCESSORS:
        try:
            getattr(transformers, auto).from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise_if_out_of_memory(error)
            problems.append(f"{auto}: {(str(error).splitlines() or [''])[0][:80]}")
        else:
            return
    sys.exit(f"the files of --processor don't load ({'; '.join(problems)})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
