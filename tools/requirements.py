"""Print what prunus, its extras and its checks need, one requirement a line, with the ranges of ``pyproject.toml``.

``--instead-of-the-lock`` says on standard error that these are installed where the lock can't be; with Python 3.11, for which the
lock was written, that is refused: what failed there isn't the lock.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements() -> list[str]:
    """Return every requirement of what ``prunus[all]`` installs and of the checks, as they are written.

    The extras that ``all`` leaves out bring packages of their own versions along, which would not go together.
    """
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = dict(project["project"]["optional-dependencies"])
    every = extras.pop("all")[0].partition("[")[2].rstrip("]").split(",")
    found = [
        *project["project"]["dependencies"],
        *(text for name in every for text in extras[name]),
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
