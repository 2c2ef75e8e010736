"""Print a lock: every package that prunus, its extras and its checks need, at the version that is installed here.

``--docs`` prints that of the extra ``docs`` alone, which has an environment of its own: pages are made of sources, without torch.

Local version labels are dropped (``2.13.0+cpu`` -> ``2.13.0``), so that the lock says the same on every machine.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(roots: list[str]) -> dict[str, str]:
    """Return name -> version of everything that ``roots`` need on this Python."""
    found: dict[str, str] = {}
    environment = {**default_environment()}
    pending = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name == "prunus":
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version.partition("+")[0]
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in distribution.requires or []:
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate({**environment, "extra": extra}):
                    pending.append(child)
    return found


def main() -> None:
    """Print the lock to standard output."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = dict(project["project"]["optional-dependencies"])
    docs = extras.pop("docs")
    roots = [
        *project["project"]["dependencies"],
        *(text for group in extras.values() for text in group),
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
        "editables",
    ]
    what = "`make demo` and `make test`"
    if "--docs" in sys.argv[1:]:
        roots, what = docs, "`make docs`"
    sys.stdout.write(f"# Written by `make lock`: what {what} install. Python 3.11.\n")
    for name, version in sorted(closure(roots).items()):
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
