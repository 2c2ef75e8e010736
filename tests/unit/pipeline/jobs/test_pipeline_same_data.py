"""Is a run only gone on with on the data and from the weights that it was begun with, by this process and by any worker?"""

import pytest
import torch
from safetensors.torch import save_file

from prunus import load_recipe
from prunus.core.errors import DataError, OutputError
from prunus.core.events import Event
from prunus.core.recipes.recipe import Model
from prunus.models import build
from prunus.pipeline import run
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.run_again import RunAgain


def kill(event: Event) -> None:
    """End the run behind its first stage that is its seed's."""
    if event.stage.startswith("seed 0 / ") and event.kind == "end":
        raise KeyboardInterrupt


def test_a_run_whose_data_were_changed_while_it_was_stopped_is_refused_here_and_by_workers(small_recipe, tmp_path):
    rows = tmp_path / "rows.csv"
    lines = [f"{k % 7},{k % 5},{k % 3},{k % 2}" for k in range(200)]
    rows.write_text("\n".join(["p,q,r,y", *lines]))

    def recipe():
        data = {"source": str(rows), "target": "y", "kinds": dict.fromkeys("pqr", "number")}
        return load_recipe(
            small_recipe("recipe.yaml", data=data, model={"builder": "mlp"}, output=str(tmp_path / "out"))
        )

    with pytest.raises(KeyboardInterrupt):
        run(recipe(), listener=kill)
    before = rows.read_text()
    rows.write_text(before.replace("6,4,2,0", "6,4,2,1"))
    said = r"out holds a run that was begun on other data \(fingerprint [0-9a-f]{12}, got [0-9a-f]{12}\): put the files back"
    with pytest.raises(DataError, match=said):
        run(recipe(), resume=True)
    with pytest.raises(DataError, match=said), RunAgain(recipe(), str(tmp_path / "out"), open_job)():
        pass
    rows.write_text(before)
    assert run(recipe(), resume=True).fingerprints["bundle"]


def test_a_run_whose_weights_were_changed_while_it_was_stopped_is_refused_here_and_by_workers(small_recipe, tmp_path):
    def weights(seed: int) -> dict[str, torch.Tensor]:
        return build(Model(builder="mlp"), input_shape=(64,), n_outputs=10, seed=seed).state_dict()

    file = tmp_path / "w.safetensors"
    save_file(weights(0), file)
    recipe = load_recipe(
        small_recipe(
            "recipe.yaml",
            data={"source": "sklearn:digits", "check_weights": False},
            model={"builder": "mlp", "weights": str(file)},
            strategy={"criterion": "magnitude_l2", "keep_fraction": 0.5},
            output=str(tmp_path / "out"),
        )
    )
    with pytest.raises(KeyboardInterrupt):
        run(recipe, listener=kill)
    save_file(weights(1), file)
    said = r"out holds a run that was begun with other weights in .*w\.safetensors \(SHA-256 [0-9a-f]{12}, got [0-9a-f]{12}\)"
    with pytest.raises(OutputError, match=said):
        run(recipe, resume=True)
    with pytest.raises(OutputError, match=said), RunAgain(recipe, str(tmp_path / "out"), open_job)():
        pass
    save_file(weights(0), file)
    assert run(recipe, resume=True).fingerprints["bundle"]
