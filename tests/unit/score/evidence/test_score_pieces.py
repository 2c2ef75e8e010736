"""Is what is added up in pieces what is added up as it comes, and the same to the bit, whoever did which piece, and when?"""

import random
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from prunus.core.errors import ModelError
from prunus.core.tensors import save_tensors
from prunus.data import Examples
from prunus.data.sources.source import ArraySource
from prunus.score import gather, probe_loss
from prunus.score.evidence import pieces
from prunus.score.evidence.pieces import MOST_PIECES, PIECE_EXAMPLES, Piece, in_turn, pieces_of

N_CLASSES = 35  # more than EXACT_OUTPUTS: what is drawn for the curvature of a batch hangs on the batch's number
PASS = (
    *("gradient", "curvature", "squared_gradient", "input_norm", "inverse_gram", "active_fraction", "output_mean"),
    *("output_variance", "block_cosine"),
)


class Net(nn.Module):
    """Convolutions alone and in groups, an attention that reads one tensor three times, and a layer that no forward pass reads."""

    def __init__(self):
        super().__init__()
        self.first, self.grouped = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 2, groups=2)
        self.query, self.key, self.value = (nn.Linear(9, 9) for _ in range(3))
        self.attention = nn.Sequential(nn.LayerNorm(9), nn.Linear(9, 9))
        self.head, self.idle = nn.Linear(36, N_CLASSES), nn.Linear(3, 3)

    def forward(self, x):
        x = self.grouped(torch.relu(self.first(x))).flatten(2)
        x = functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.head(torch.relu(self.attention(x)).flatten(1))


def cross_entropy(outputs, batch):
    return functional.cross_entropy(outputs, batch.targets)


def examples_like(n):
    draw = torch.Generator().manual_seed(0)
    values, labels = torch.randn(n, 2, 6, 6, generator=draw), torch.arange(n) % N_CLASSES
    ids, names = tuple(map(str, range(n))), tuple(map(str, range(N_CLASSES)))
    return Examples(ArraySource("made", ids, values, labels, "classification", names), torch.arange(n))


def gathered(needs=PASS, n=70, **options):
    torch.manual_seed(3)
    net = Net()
    names = [name for name, _ in net.named_parameters()]
    options = {"loss": cross_entropy, "batch_size": 4, **options}
    found = gather(net, names, examples_like(n), needs=needs, blocks=["attention"], **options)
    more = {f"{need}/{name}": value for need, of in found.more.items() for name, value in of.items()}
    parts = {"gradient": found.gradient, "gram": found.input_gram, "mean": found.input_mean, "more": more}
    return {f"{what}/{name}": value for what, of in parts.items() for name, value in of.items()}


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_EXAMPLES", 12)


@pytest.mark.parametrize("loss", [cross_entropy, probe_loss("kl", seed=1)])
def test_pieces_say_what_one_pass_says_up_to_rounding(loss, monkeypatch):
    needs = (*PASS, "hessian_gradient")
    whole = gathered(needs, loss=loss)
    monkeypatch.setattr(pieces, "PIECE_EXAMPLES", 12)
    found = gathered(needs, loss=loss)
    assert found.keys() == whole.keys()
    assert {key.split("/")[1] for key in found if key.startswith("more/")} == {*needs} - {"gradient"}
    for key, value in whole.items():
        assert found[key].dtype == value.dtype, key
        torch.testing.assert_close(found[key], value, rtol=2e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
    assert any(
        not torch.equal(found[key], value) for key, value in whole.items()
    )  # they were really added up otherwise


def test_it_is_the_same_to_the_bit_whoever_adds_up_which_piece_and_when(small_pieces, tmp_path):
    needs, orders = (*PASS, "hessian_gradient"), []

    def shuffled(what, n, sums_of, join):
        order = random.Random(5).sample(range(n), n)
        for number in order:
            sums = {name: value.detach().contiguous() for name, value in sums_of(number).items()}
            save_tensors(sums, tmp_path / f"{what} {number}")
        orders.append((what, order))
        return join(load_file(tmp_path / f"{what} {number}") for number in range(n))

    one, other = gathered(needs), gathered(needs, joins=shuffled)
    assert [what for what, _ in orders] == ["evidence", "second pass"]
    assert all(order != sorted(order) and len(order) == 6 for _, order in orders)
    assert one.keys() == other.keys()
    assert all(value.numpy().tobytes() == other[key].numpy().tobytes() for key, value in one.items())


def test_the_sums_of_two_pieces_at_most_are_held_at_a_time(small_pieces):
    held = [0, 0]

    def gone():
        held[0] -= 1

    def counting(what, n, sums_of, join):
        def counted(number):
            sums = sums_of(number)
            gram = next(value for name, value in sums.items() if name.startswith("watch/grams/products"))
            weakref.finalize(gram, gone)
            held[0] += 1
            held[1] = max(held)
            return sums

        return in_turn(what, n, counted, join)

    gathered(("inverse_gram",), n=200, joins=counting)
    assert held[1] <= 2


def test_what_no_piece_reaches_has_no_gradient_and_what_one_reaches_has(small_pieces):
    data = examples_like(36)
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, N_CLASSES))

    def in_the_middle(outputs, batch):
        return (outputs if 12 <= batch.index[0] < 24 else outputs.detach().requires_grad_(True)).square().mean()

    found = gather(net, ["1.weight"], data, in_the_middle, ("gradient",), 4)
    assert found.gradient["1.weight"].abs().sum() > 0
    with pytest.raises(ModelError, match="no gradient with respect to any of 1 parameters"):
        gather(net, ["1.weight"], data, lambda o, b: o.detach().requires_grad_(True).mean(), ("gradient",), 4)


class Plain:
    """Examples that can only be gone through from the first to the last."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n


@given(st.integers(0, 10**6), st.integers(1, 5000))
def test_pieces_are_whole_batches_that_hang_on_nothing_but_length_and_batch_size(n, batch_size):
    data = object.__new__(Examples)
    data.rows = range(n)
    found = pieces_of(data, batch_size)
    assert sum(piece.n for piece in found) == n
    assert [piece.first for piece in found] == [sum(one.n for one in found[:k]) for k in range(len(found))]
    assert all(piece.n % batch_size == 0 for piece in found[:-1])
    assert len(found) <= MOST_PIECES
    if len(found) > 1:
        assert min(piece.n for piece in found[:-1]) > PIECE_EXAMPLES - batch_size
    if n <= PIECE_EXAMPLES:
        assert found == [Piece(0, n)] or batch_size * 2 > PIECE_EXAMPLES
    assert pieces_of(Plain(n), batch_size) == [Piece(0, n)]
