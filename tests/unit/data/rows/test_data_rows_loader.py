"""Do workers that send many batches at once give the same batches as none, and does a checkpoint go on behind the last one?"""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import prunus
from prunus.core.errors import DataError, RecipeError

sys.path.insert(0, str(Path(__file__).parent))
import row_jobs

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
MASK = np.random.default_rng(0).random(900) < 0.4


@pytest.fixture
def rows(tmp_path):
    return prunus.kept_rows(row_jobs.write(tmp_path / "in", "parquet"), MASK, target="label")


def loader_of(rows, workers, together=3, **options):
    return rows.loader(16, num_workers=workers, together=together, **{"window_rows": 64, "seed": 2, **options})


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("together", [1, 2, 5, 64])
def test_batches_that_are_sent_together_are_those_of_the_stream_in_its_order(rows, workers, together):
    loader = loader_of(rows, workers, together)
    for epoch in (0, 3):
        loader.set_epoch(epoch)
        stream = rows.stream(16, window_rows=64, seed=2)
        stream.set_epoch(epoch)
        assert len(loader) == len(stream)
        assert same(list(stream), list(loader))


@pytest.mark.parametrize("taken", [1, 2, 7, 20])
def test_a_checkpoint_of_the_loop_goes_on_behind_the_batch_that_it_had_last(rows, taken):
    loader = loader_of(rows, 2)
    loader.set_epoch(1)
    whole = list(loader)
    for number, _ in enumerate(loader, 1):
        if number == taken:
            break
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    for workers in (0, 1, 2, 4):
        again = loader_of(rows, workers, together=4)
        again.load_state_dict(state)
        assert len(again) == len(whole) - taken
        assert again.state_dict() == state
        assert same(whole[taken:], list(again))


def test_ranks_together_have_every_row_once(rows):
    parts = [list(loader_of(rows, 2, rank=rank, n_ranks=2)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    found = torch.cat([batch[0] for part in parts for batch in part])
    assert found.sort().values.tolist() == np.flatnonzero(MASK).tolist()


def test_a_damaged_file_is_named_from_a_worker_too(rows):
    loader = loader_of(rows, 2)
    (rows.rows.files[1]).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"part-1.parquet: it is damaged"):
        list(loader)


@pytest.mark.parametrize("options", [{"workers": 3}, {"workers": -1}, {"workers": 1, "together": 0}])
def test_settings_out_of_range_are_refused(rows, options):
    with pytest.raises(RecipeError, match=r"expected"):
        loader_of(rows, **options)
