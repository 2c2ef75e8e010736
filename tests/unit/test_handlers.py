"""A trial that fails for lack of memory says nothing of what was tried: no handler that is wide enough to catch it may keep it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
WIDE = {"Exception", "BaseException", "RuntimeError"}
"""What torch raises where memory lacks is a ``RuntimeError``."""
EXPLAINS = {"cli/app.py", "recover/training/follow.py"}
"""Here every error ends: ``cli.ending`` looks for a lack of memory first, and rank 0 is told whatever failed on another rank."""


def names(kinds: ast.expr | None) -> set[str]:
    return {node.id for node in ast.walk(kinds) if isinstance(node, ast.Name)} if kinds is not None else WIDE


def lets_through(handler: ast.ExceptHandler) -> bool:
    """Whether the first thing that a handler does is to raise a lack of memory again, or the last is to raise whatever came."""
    first, last = handler.body[0], handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return not any(isinstance(node, (ast.Return, ast.Continue, ast.Break)) for node in ast.walk(handler))
    call = first.value if isinstance(first, ast.Expr) else None
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "raise_if_out_of_memory"
        and [ast.unparse(argument) for argument in call.args] == [handler.name]
        and "BaseException" not in names(handler.type)
    )


def swallowing(code: str) -> Iterator[int]:
    """Yield the lines where something that is too wide is caught, and a lack of memory or an interrupt with it."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ExceptHandler) and names(node.type) & WIDE and not lets_through(node):
            yield node.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
            yield from [node.lineno] * bool(set().union(*map(names, node.args)) & WIDE)
        if isinstance(node, ast.Try):
            yield from (
                inner.lineno
                for last in node.finalbody
                for inner in ast.walk(last)
                if isinstance(inner, (ast.Return, ast.Continue, ast.Break))
            )


def test_no_handler_keeps_a_lack_of_memory_or_an_interrupt():
    files = sorted((SOURCES / "prunus").rglob("*.py"))
    found = [
        f"{path.relative_to(SOURCES)}:{line}: raise_if_out_of_memory(error) comes first, or catch less"
        for path in files
        if path.relative_to(SOURCES / "prunus").as_posix() not in EXPLAINS
        for line in swallowing(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("handler", "kept"),
    [
        ("except Exception: pass", True),
        ("except: pass", True),
        ("except RuntimeError as error: raise ValueError(str(error)) from error", True),
        ("except (ValueError, Exception) as error: return None", True),
        ("except BaseException as error:\n  raise_if_out_of_memory(error)\n  return None", True),
        ("except Exception as error:\n  return 1\n  raise", True),
        ("except Exception as error:\n  raise_if_out_of_memory(other)", True),
        ("finally:\n  return 1", True),
        ("except Exception as error:\n  raise_if_out_of_memory(error)\n  return None", False),
        ("except BaseException:\n  close()\n  raise", False),
        ("except ValueError: pass", False),
        ("finally:\n  close()", False),
    ],
)
def test_the_law_sees_what_keeps_it(handler, kept):
    body = "def f():\n try:\n  g()\n " + handler.replace("\n", "\n ")
    assert bool(list(swallowing(body))) == kept


def test_the_law_sees_what_is_suppressed():
    assert list(swallowing("with contextlib.suppress(Exception): f()")) == [1]
    assert not list(swallowing("with suppress(OSError): f()"))
