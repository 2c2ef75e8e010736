"""Which code does a machine run? Answers are the same to the bit only where all run the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["asker", "difference", "versions"]


def versions() -> dict[str, str]:
    """Return which prunus, Python and packages there are; of prunus also a hash of its sources."""
    return asker()()


def difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Return how theirs differ from ours in words; nothing where they don't.

    >>> difference({"torch": "2.13.0"}, {"torch": "2.14.1"})
    'torch 2.13.0, where 2.14.1 is expected'
    """
    odd = [name for name in ours if theirs.get(name) != ours[name]]
    return ", ".join(f"{name} {theirs.get(name, 'not at all')}, where {ours[name]} is expected" for name in odd)


def asker() -> Callable[[], dict[str, str]]:
    """Return a function that tells ``versions``, also where there is another prunus or none: it takes its own code along."""

    def asked() -> dict[str, str]:
        import hashlib
        import platform
        from importlib import metadata, util
        from pathlib import Path

        found = {"prunus": "not at all", "python": platform.python_version()}
        spec = util.find_spec("prunus")
        if spec is not None and spec.origin is not None:
            folder, total = Path(spec.origin).parent, hashlib.sha256()
            for path in sorted(folder.rglob("*.py")):
                total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
            lines = Path(spec.origin).read_text(encoding="utf-8").splitlines()
            version = (
                next((line for line in lines if line.startswith("__version__")), "").partition("=")[2].strip(" \"'")
            )
            found["prunus"] = f"{version} (sources {total.hexdigest()[:12]})"
        for name in ("torch", "numpy", "pyarrow"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "not at all"
        return found

    return asked
