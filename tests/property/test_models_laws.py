"""Laws of building and loading, for any sizes."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from prunus.core.batch import Batch
from prunus.core.errors import WeightsError
from prunus.core.recipes.recipe import Model
from prunus.models import build, builders, check_outputs, load_weights
from prunus.tasks import Classification

laws = settings(deadline=None, derandomize=True, max_examples=25)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
ARGUMENTS = {
    "mlp": st.fixed_dictionaries(
        {"depth": st.integers(0, 3), "width": st.integers(1, 9), "norm": st.sampled_from(["none", "batch", "layer"])}
    ),
    "cnn": st.fixed_dictionaries(
        {"depth": st.integers(1, 4), "width": st.integers(1, 5), "pool": st.sampled_from(["average", "flatten"])}
    ),
    "resnet": st.fixed_dictionaries(
        {"stages": st.integers(1, 3), "width": st.integers(1, 5), "blocks": st.integers(1, 2)}
    ),
}


def attempt(function, *arguments):
    """Return (result, None), or (None, message) of the error that is raised on purpose."""
    try:
        return function(*arguments), None
    except WeightsError as error:
        return None, str(error)


def test_every_builder_is_under_these_laws():
    assert set(ARGUMENTS) == set(builders)


@pytest.mark.parametrize("name", list(builders))
@laws
@given(data=st.data(), shape=SHAPES, n_outputs=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_built_model_fits_its_data_and_its_weights_survive_both_formats(name, data, shape, n_outputs, seed):
    config = Model(builder=name, args=data.draw(ARGUMENTS[name]))
    model = build(config, input_shape=shape, n_outputs=n_outputs, seed=seed).eval()
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    batch = Batch(torch.arange(3), inputs, torch.zeros(3, dtype=torch.int64))
    check_outputs(model, batch, Classification(n_classes=n_outputs))
    other = build(config, input_shape=shape, n_outputs=n_outputs, seed=seed + 1).eval()
    with tempfile.TemporaryDirectory() as folder:
        for file in ("w.safetensors", "w.pt"):
            path = Path(folder) / file
            state = {key: value.contiguous() for key, value in model.state_dict().items()}
            if path.suffix == ".pt":
                torch.save(state, path)
            else:
                save_file(state, path)
            load_weights(other, path)
            with torch.no_grad():
                assert torch.equal(other(inputs), model(inputs))


@laws
@given(st.data())
def test_a_damaged_weight_file_is_loaded_whole_or_not_at_all(data):
    config = Model(builder="mlp", args={"width": 3, "depth": 1})
    model, saved = (build(config, input_shape=(2,), n_outputs=2, seed=seed) for seed in (0, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_file(dict(saved.state_dict()), path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(
            bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
        )
        _, message = attempt(load_weights, model, path)
        if message is not None:
            assert "\n" not in message
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        else:
            assert all(value.isfinite().all() for value in model.state_dict().values())
