"""Is a run only gone on with on the data that it was begun on, by this process and by any worker?"""

import pytest

from prunus import load_recipe
from prunus.core.errors import DataError
from prunus.core.events import Event
from prunus.pipeline import run
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.run_again import RunAgain


def test_a_run_whose_data_were_changed_while_it_was_stopped_is_refused_here_and_by_workers(small_recipe, tmp_path):
    rows = tmp_path / "rows.csv"
    lines = [f"{k % 7},{k % 5},{k % 3},{k % 2}" for k in range(200)]
    rows.write_text("\n".join(["p,q,r,y", *lines]))

    def recipe():
        data = {"source": str(rows), "target": "y", "kinds": dict.fromkeys("pqr", "number")}
        return load_recipe(
            small_recipe("recipe.yaml", data=data, model={"builder": "mlp"}, output=str(tmp_path / "out"))
        )

    def kill(event: Event) -> None:
        if event.stage == "seed 0 / train" and event.kind == "end":
            raise KeyboardInterrupt

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
