"""What is handed out can't be changed behind the back of who else holds it."""

import dataclasses
import importlib
import pkgutil

import pytest

import prunus.evaluate
import prunus.score
import prunus.select


@pytest.mark.parametrize(
    "package", [prunus.evaluate, prunus.score, prunus.select], ids=lambda package: package.__name__
)
def test_public_dataclasses_are_frozen(package):
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
    public = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    classes = {item for item in public if isinstance(item, type) and dataclasses.is_dataclass(item)}
    assert classes
    assert {item.__name__ for item in classes if not item.__dataclass_params__.frozen} == set()
