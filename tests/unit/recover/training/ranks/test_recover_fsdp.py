"""What of a model is sharded apart, and what FSDP can't do, known before any process is there."""

import pytest
from torch import nn

from prunus.apply import Masks
from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Train
from prunus.recover import ProximalL1, sparsity_step
from prunus.recover.training.ranks.fsdp import blocks_of, check_shards
from prunus.recover.training.ranks.together import own_places


class Blocks(nn.Module):
    """A stem, blocks in a list (each with a sequence inside), and a head that shares the stem's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(4, 4))
        self.head[0].weight = self.stem.weight


def test_the_outermost_blocks_are_sharded_apart_but_for_what_others_share():
    model = Blocks()
    assert blocks_of(model) == list(model.blocks)


def test_a_plain_layer_is_no_list_of_blocks():
    assert blocks_of(nn.Linear(2, 2)) == []


def test_what_needs_whole_parameters_is_refused_in_one_line():
    model = nn.Sequential(nn.Linear(4, 4))
    l0 = sparsity_step(model, kind="l0", names=["0.weight"], strength=0.1)
    with pytest.raises(RecipeError, match=r"HardConcrete looks at whole parameters.*sharding: ddp"):
        check_shards(Train(), l0.attach, "seed 0 / sparsify")
    with pytest.raises(RecipeError, match="float16"):
        check_shards(Train(precision="float16"), None, "seed 0 / train")
    check_shards(Train(), None, "seed 0 / train")
    check_shards(Train(), Masks(model, {}).guard, "seed 0 / recover")
    check_shards(Train(), ProximalL1(model, ["0.weight"], 0.1).attach, "seed 0 / sparsify")


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 33])
def test_every_example_of_a_batch_is_one_rank_s_own_and_parts_differ_by_one_at_most(n, n_ranks):
    parts = [own_places(n, rank, n_ranks) for rank in range(n_ranks)]
    assert [place for part in parts for place in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
