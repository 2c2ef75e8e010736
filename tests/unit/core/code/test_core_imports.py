"""A user's code is found and called, and a mistake in it comes back as one line."""

import sys

import pytest

from prunus.core.code.imports import call, resolve
from prunus.core.errors import DataError, ModelError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the current folder; each test's has its own name."""
    monkeypatch.chdir(tmp_path)
    written = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def refused(reference, pattern, error=ModelError):
    with pytest.raises(error, match=pattern) as caught:
        resolve(reference, error=error)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_function_of_the_current_folder_is_found_and_the_path_stays_as_it_was(module):
    module("imports_good", "class Nets:\n    def small(x): return x + 1\n")
    before = list(sys.path)
    assert resolve("imports_good:Nets.small", error=ModelError)(1) == 2
    assert sys.path == before


def test_a_missing_module_function_or_dependency_is_told_apart(module):
    module("imports_partial", "def build(): ...\ndef _hidden(): ...\n")
    module("imports_needy", "import surely_not_installed\n")
    module("imports_broken", "1 / 0\n")
    module("imports_syntax", "def f(:\n")
    module("imports_leaving", "raise SystemExit(3)\n")
    refused("imports_absent:f", "no module 'imports_absent'", DataError)
    refused("imports_partial:bild", "no 'bild'; did you mean 'build'")
    refused("imports_needy:f", "importing 'imports_needy' failed: ModuleNotFoundError.*surely_not_installed.*install")
    assert isinstance(refused("imports_broken:f", "ZeroDivisionError: division by zero").__cause__, ZeroDivisionError)
    refused("imports_syntax:f", "SyntaxError")
    refused("imports_leaving:f", "SystemExit: 3")
    refused("imports_partial:__name__", "must be a function, got str")


@pytest.mark.parametrize("reference", ["a b:c", "a:", ":b", "a:b:c", "a..b:c", "os:system('x')"])
def test_only_names_are_accepted(reference):
    refused(reference, "expected module:function")


def test_arguments_are_checked_before_the_call():
    def build(width, *, depth=2):
        return width, depth

    def fits(arguments, **offered):
        return call(build, arguments, what="f", key="model.args", error=ModelError, offered=offered)

    assert fits({"width": 3}) == (3, 2)
    assert fits({}, width=5, n_outputs=2) == (5, 2)  # offered: only what stands in the signature
    assert fits({"width": 3}, width=5) == (3, 2)  # given beats offered
    with pytest.raises(ModelError, match=r"f has no argument 'widht' \(model\.args\): did you mean 'width'"):
        fits({"widht": 3})
    with pytest.raises(ModelError, match=r"needs the argument 'width': add it to model\.args"):
        fits({})


def test_what_the_function_raises_is_chained_with_its_type_and_text():
    def fails():
        raise KeyError("first\nsecond")

    with pytest.raises(DataError, match=r"f failed: KeyError: .*first.*second") as caught:
        call(fails, {}, what="f", key="data.args", error=DataError)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_function_that_takes_anything_gets_what_was_given_and_nothing_offered():
    assert call(lambda **rest: rest, {"a": 1}, what="f", key="k", error=DataError, offered={"b": 2}) == {"a": 1}
