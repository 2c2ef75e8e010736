"""Print what prunus, its extras and its checks need, one requirement a line, with the ranges of ``pyproject.toml``.

``--instead-of-the-lock`` says on standard error that these are installed where the lock can't be; with Python 3.11, for which the
lock was written, that is refused: what failed there isn't the lock.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements() -> list[str]:
    """Return every requirement but prunus's own extras and those of the docs, as they are written."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].items()
    found = [
        *project["project"]["dependencies"],
        *(text for name, extra in extras if name != "docs" for text in extra),
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
        "editables",
    ]
    return [text for text in dict.fromkeys(found) if not text.startswith("prunus")]


def main() -> None:
    """Print them."""
    if "--instead-of-the-lock" in sys.argv[1:]:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if version == "3.11":
            sys.exit("error: the packages of requirements.lock can't be installed; see above what pip says")
        sys.stderr.write(
            f"requirements.lock, written with Python 3.11, doesn't fit {version}: the ranges are installed\n"
        )
    sys.stdout.write("".join(f"{text}\n" for text in requirements()))


if __name__ == "__main__":
    main()
