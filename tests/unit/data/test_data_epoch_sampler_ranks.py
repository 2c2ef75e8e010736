"""Do two processes that train together draw one epoch between them, with workers of their own, and go on exactly?"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import prunus

sys.path.insert(0, str(Path(__file__).parent / "rows"))
import row_jobs

N, RANKS, BATCH, TAKEN = 203, 2, 8, 3
pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo")


def sampler_of(rank):
    return prunus.EpochSampler(N, keep_fraction=0.5, seed=4, rank=rank, n_ranks=RANKS)


def taken_by(loader, model, optimizer, weights, most=None):
    """Train on what a loader gives, a step of both ranks together each time, and return the positions."""
    found = []
    for number, (position, inputs) in enumerate(loader):
        if number == most:
            break
        optimizer.zero_grad()
        (weights[position] * model(inputs)[:, 0].square()).mean().backward()
        optimizer.step()
        found += position.tolist()
    return found


def train(rank, folder):
    """Train with DistributedDataParallel at 0, 1 and 2 workers, once through and once stopped and gone on with."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    data = TensorDataset(torch.arange(N), torch.randn(N, 4))
    scores = torch.linspace(0.1, 1, N)
    for workers in (0, 1, 2):
        sampler = sampler_of(rank)
        loader = DataLoader(data, BATCH, sampler=sampler, num_workers=workers)
        sampler.set_epoch(3, scores)
        whole = taken_by(loader, model, optimizer, sampler.weights)
        sampler.set_epoch(3)
        begun = taken_by(loader, model, optimizer, sampler.weights, TAKEN)
        again = sampler_of(rank)
        again.load_state_dict(sampler.state_dict(len(begun)))
        rest = taken_by(DataLoader(data, BATCH, sampler=again, num_workers=workers), model, optimizer, again.weights)
        torch.save({"whole": whole, "resumed": begun + rest}, f"{folder}/{rank}-{workers}.pt")
    rows = prunus.kept_rows(f"{folder}/rows", np.arange(300) % 3 > 0, target="label")
    for workers in (0, 2):
        kept = rows.loader(16, num_workers=workers, rank=rank, n_ranks=RANKS, window_rows=64)
        found = []
        for position, inputs, _ in kept:
            optimizer.zero_grad()
            model(inputs[:, [0, 1, 0, 1]] / 300).square().mean().backward()
            optimizer.step()
            found += position.tolist()
        torch.save(found, f"{folder}/kept-{rank}-{workers}.pt")
    # What both ranks computed is one model: no step was of one of them alone.
    gathered = [torch.empty(1, 4) for _ in range(RANKS)]
    dist.all_gather(gathered, model.module.weight.detach())
    torch.save(torch.equal(*gathered), f"{folder}/equal-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    row_jobs.write(folder / "rows", "parquet", n_files=1)
    mp.spawn(train, (str(folder),), nprocs=RANKS)
    return folder


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_ranks_together_take_exactly_the_draw_of_the_epoch(trained, workers):
    parts = [torch.load(trained / f"{rank}-{workers}.pt")["whole"] for rank in range(RANKS)]
    sampler = sampler_of(0)
    sampler.set_epoch(3, torch.linspace(0.1, 1, N))
    assert len(parts[0]) == len(parts[1])
    assert sorted(parts[0] + parts[1]) == sorted(sampler.drawn(3).tolist())


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("rank", range(RANKS))
def test_a_rank_that_was_stopped_takes_what_is_left_in_its_order(trained, workers, rank):
    found = torch.load(trained / f"{rank}-{workers}.pt")
    assert found["resumed"] == found["whole"]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_ranks_together_read_every_row_that_stays_once(trained, workers):
    parts = [torch.load(trained / f"kept-{rank}-{workers}.pt") for rank in range(RANKS)]
    assert sorted(parts[0] + parts[1]) == np.flatnonzero(np.arange(300) % 3 > 0).tolist()


def test_every_step_was_one_of_both_ranks(trained):
    assert [torch.load(trained / f"equal-{rank}.pt") for rank in range(RANKS)] == [True, True]
