"""Does a worker refuse data that aren't those of the process that asks?"""

import pytest

from prunus import load_recipe
from prunus.core.errors import DataError
from prunus.pipeline.jobs.run_again import RunAgain
from prunus.pipeline.jobs.workspace import Workspace
from prunus.pipeline.main_job import open_job


def test_a_worker_that_reads_other_files_under_the_same_path_says_so(small_recipe, tmp_path):
    recipe = load_recipe(small_recipe("recipe.yaml", output=str(tmp_path / "out")))
    with open_job(recipe, Workspace(None)) as job:
        fingerprint = job.data.fingerprint
    with RunAgain(recipe, str(tmp_path), open_job, fingerprint)():
        pass
    other = RunAgain(recipe, str(tmp_path), open_job, "0" * 64)
    with (
        pytest.raises(DataError, match=r"reads other data .*expected 000000000000\): give all of them the same"),
        other(),
    ):
        pass
