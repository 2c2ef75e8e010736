"""A guard over what a process touches: every file that is opened, module that is imported and command that is started."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_watching: list[list[str]] = []
_installed: list[bool] = []
MODULE = "canary_that_nobody_named"
STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn")
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.listdir", "os.scandir", "shutil.rmtree", "os.symlink")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in STARTS or (event == "import" and arguments[0] == MODULE):
        _watching[-1].append(f"{event} {arguments[0]}")
    elif event in TOUCHES and any(isinstance(a, str | bytes | os.PathLike) and "outside" in str(a) for a in arguments):
        _watching[-1].append(f"{event} {arguments}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Yield a list that fills with every command, canary import, and touch of a path with ``outside`` in it."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


def payloads(folder: Path) -> list[str]:
    """Return what a hostile file may put into a field; all of it would work, were it followed."""
    outside = folder / "outside"
    outside.mkdir(exist_ok=True)
    rows = "".join(f"{i},{i % 7},{i % 5},{i % 3},{'abc'[i % 3]}\n" for i in range(90))
    (outside / "data.csv").write_text("a,b,c,d,label\n" + rows)
    (folder / f"{MODULE}.py").write_text("def f(*arguments, **more):\n    raise SystemExit('it ran')\n")
    path = outside / "data.csv"
    return [f"{MODULE}:f", "os:system", str(path), f"../{folder.name}/outside/data.csv", path.as_uri(), str(outside)]


def leaves(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value (of a list, the first: all are alike), empty lists and mappings among them."""
    below: Any = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in below:
        yield from leaves(value, (*at, key))
    if at and not below:
        yield at


def planted(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of ``tree`` with ``value`` at the end of a way."""
    result = copy.deepcopy(tree)
    node = result
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = value
    return result
