"""Blocks of sequence networks: attention in every variant, recurrences, mixtures; ``graph_zoo`` draws programs of them.

A block takes the current features and an older one, ``(n, time, width)`` and ``(n, time, other)``, and gives ``out`` features.
No activation is flat: behind a dead unit nothing can be seen, and widths are small here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from graph_zoo_images import Block, even

__all__ = ["SEQUENCES"]

SEQUENCES: dict[str, type[Block]] = {}


def sequence(block: type[Block]) -> type[Block]:
    name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in block.__name__)
    SEQUENCES[name.lstrip("_")] = block
    return block


def split_heads(x: Tensor, heads: int) -> Tensor:
    n, t, _ = x.shape
    return x.view(n, t, heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


@sequence
class Linear(Block):
    def make(self, width, other, out):
        self.a = nn.Linear(width, out)


@sequence
class Mlp(Block):
    def make(self, width, other, out):
        self.out = width
        self.norm = nn.LayerNorm(width)
        self.a, self.b = nn.Linear(width, out), nn.Linear(out, width)

    def forward(self, x, old):
        return x + self.b(functional.gelu(self.a(self.norm(x))))


@sequence
class Glu(Block):
    def make(self, width, other, out):
        self.out = width
        self.a, self.b = nn.Linear(width, 2 * out), nn.Linear(out, width)

    def forward(self, x, old):
        return x + self.b(functional.glu(self.a(x), dim=-1))


@sequence
class GateUp(Block):
    def make(self, width, other, out):
        self.out = width
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.a, self.b, self.c = nn.Linear(width, out), nn.Linear(width, out), nn.Linear(out, width, bias=False)

    def forward(self, x, old):
        y = self.norm(x)
        return x + self.c(functional.silu(self.a(y)) * self.b(y))


@sequence
class Concat(Block):
    def make(self, width, other, out):
        self.a = nn.Linear(width + other, out)

    def forward(self, x, old):
        return torch.tanh(self.a(torch.cat([x, old], dim=-1)))


@sequence
class Pieces(Block):
    """Pieces of different sizes, which come back in another order."""

    def make(self, width, other, out):
        self.pieces, self.out = [2, out, 3], out + 5
        self.a, self.b = nn.Linear(width, self.out), nn.Linear(out, out)

    def forward(self, x, old):
        one, two, three = self.a(x).split(self.pieces, dim=-1)
        return torch.cat([three, torch.tanh(self.b(two)) * two, one], dim=-1)


@sequence
class PlusOld(Block):
    def make(self, width, other, out):
        self.out = other
        self.a = nn.Linear(width, other)

    def forward(self, x, old):
        return torch.tanh(self.a(x)) + old


@sequence
class FusedAttention(Block):
    def make(self, width, other, out):
        self.heads, self.inner, self.out = 2, even(out), width
        self.a, self.b = nn.Linear(width, 3 * self.inner, bias=False), nn.Linear(self.inner, width)

    def forward(self, x, old):
        n, t, _ = x.shape
        q, k, v = self.a(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return x + self.b(merge_heads(functional.scaled_dot_product_attention(q, k, v)))


@sequence
class Attention(Block):
    """Separate projections; queries from the current features, keys and values from older ones; plain operations."""

    def make(self, width, other, out):
        self.heads, self.out = 3, width
        self.q, self.k, self.v = nn.Linear(width, 3 * out), nn.Linear(other, 3 * out), nn.Linear(other, 3 * out)
        self.o = nn.Linear(3 * out, width)
        self.scale = out**-0.5

    def forward(self, x, old):
        q, k, v = (split_heads(y, self.heads) for y in (self.q(x), self.k(old), self.v(old)))
        scores = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return x + self.o(merge_heads(scores @ v))


@sequence
class GroupedQuery(Block):
    """Grouped-query attention with rotary halves, on a normalised input."""

    def make(self, width, other, out):
        self.few, self.each, self.width, self.out = 2, 2, even(out), width
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, self.few * self.each * self.width)
        self.k, self.v = nn.Linear(width, self.few * self.width), nn.Linear(width, self.few * self.width)
        self.o = nn.Linear(self.few * self.each * self.width, width)
        self.register_buffer("speed", torch.randn(self.width // 2))
        self.scale = self.width**-0.5

    def turn(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * self.speed
        one, other = x.chunk(2, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)

    def forward(self, x, old):
        y = self.norm(x)
        n, t, _ = x.shape
        q = self.q(y).view(n, t, self.few * self.each, self.width).transpose(1, 2)
        k, v = (f(y).view(n, t, self.few, self.width).transpose(1, 2) for f in (self.k, self.v))
        q, k = self.turn(q), self.turn(k)
        k, v = (z.repeat_interleave(self.each, dim=1) for z in (k, v))
        return x + self.o(merge_heads(functional.scaled_dot_product_attention(q, k, v, scale=self.scale)))


@sequence
class TorchAttention(Block):
    def make(self, width, other, out):
        self.out = 2 * even(out)
        self.into = nn.Linear(width, self.out)
        self.a = nn.MultiheadAttention(self.out, 2, batch_first=True)

    def forward(self, x, old):
        y = self.into(x)
        return y + self.a(y, y, y, need_weights=False)[0]


@sequence
class Encoder(Block):
    def make(self, width, other, out):
        self.out = 2 * even(out)
        self.into = nn.Linear(width, self.out)
        self.a = nn.TransformerEncoderLayer(self.out, 2, out + 1, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x, old):
        return self.a(self.into(x))


@sequence
class Lstm(Block):
    def make(self, width, other, out):
        self.a = nn.LSTM(width, out, batch_first=True)

    def forward(self, x, old):
        return self.a(x)[0]


@sequence
class StackedLstm(Block):
    def make(self, width, other, out):
        self.out = 2 * out
        self.a = nn.LSTM(width, out, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x, old):
        return self.a(x)[0]


@sequence
class Gru(Block):
    def make(self, width, other, out):
        self.out = 2 * out
        self.a = nn.GRU(width, out, batch_first=True, bidirectional=True)

    def forward(self, x, old):
        return self.a(x)[0]


@sequence
class Rnn(Block):
    """The last state joins the outputs."""

    def make(self, width, other, out):
        self.a = nn.RNN(width, out, num_layers=2, batch_first=True)

    def forward(self, x, old):
        y, last = self.a(x)
        return y + last[-1].unsqueeze(1)


@sequence
class LstmCell(Block):
    def make(self, width, other, out):
        self.a = nn.LSTMCell(width, out)

    def forward(self, x, old):
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.a(step, state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1)


@sequence
class GruCell(Block):
    def make(self, width, other, out):
        self.a = nn.GRUCell(width, out)

    def forward(self, x, old):
        state, outputs = x.new_zeros(x.shape[0], self.a.hidden_size), []
        for t in range(x.shape[1]):
            state = self.a(x[:, t], state)
            outputs.append(state)
        return torch.stack(outputs, dim=1)


@sequence
class Scan(Block):
    """A diagonal state-space recurrence: each feature has its own states, which decay."""

    def make(self, width, other, out):
        self.out = width
        self.decay = nn.Parameter(torch.randn(width, out))
        self.b, self.c = nn.Linear(width, out), nn.Linear(width, out)

    def forward(self, x, old):
        state, outputs = x.new_zeros(x.shape[0], *self.decay.shape), []
        b, c = self.b(x), self.c(x)
        for t in range(x.shape[1]):
            state = state * torch.sigmoid(self.decay) + x[:, t, :, None] * b[:, t, None, :]
            outputs.append((state * c[:, t, None, :]).sum(-1))
        return x + torch.stack(outputs, dim=1)


@sequence
class Contract(Block):
    """Products written as einsum: over features, and between positions."""

    def make(self, width, other, out):
        self.a = nn.Parameter(torch.randn(width, 2, out))
        self.b = nn.Parameter(torch.randn(2, out, out))

    def forward(self, x, old):
        y = torch.tanh(torch.einsum("ntc,ckd->ntkd", x, self.a))
        mixed = torch.einsum("ntkd,nskd,nske->ntke", y, y, y) / y.shape[1]
        return torch.einsum("ntkd,kde->nte", mixed, self.b)


@sequence
class Time(Block):
    """Convolutions over time, one of them transposed."""

    def make(self, width, other, out):
        self.a = nn.Conv1d(width, out, 3, padding=1)
        self.b = nn.ConvTranspose1d(out, out, 3, padding=1)

    def forward(self, x, old):
        return torch.tanh(self.b(functional.elu(self.a(x.transpose(1, 2))))).transpose(1, 2)


@sequence
class Experts(Block):
    """A mixture that all experts take part in."""

    def make(self, width, other, out):
        self.out = width
        self.router = nn.Linear(width, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, out), nn.GELU(), nn.Linear(out, width)) for _ in range(3)
        )

    def forward(self, x, old):
        weight = self.router(x).softmax(dim=-1)
        return x + sum(weight[..., i, None] * expert(x) for i, expert in enumerate(self.experts))


@sequence
class StackedExperts(Block):
    """The same with the experts' weights in one tensor."""

    def make(self, width, other, out):
        self.out = width
        self.router = nn.Linear(width, 3)
        self.up, self.down = nn.Parameter(torch.randn(3, width, out)), nn.Parameter(torch.randn(3, out, width))

    def forward(self, x, old):
        y = torch.einsum("ntc,ecd->netd", x, self.up).sigmoid()
        return x + torch.einsum("netd,edc,nte->ntc", y, self.down, self.router(x).softmax(dim=-1))


@sequence
class Shared(Block):
    """One block, applied three times: with its norm before, as deep equilibrium models and ALBERT do."""

    def make(self, width, other, out):
        self.out = width
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out), nn.Tanh(), nn.Linear(out, width))

    def forward(self, x, old):
        for _ in range(3):
            x = x + self.body(x)
        return x


@sequence
class NormedWeight(Block):
    def make(self, width, other, out):
        self.a = weight_norm(nn.Linear(width, out))

    def forward(self, x, old):
        return torch.tanh(self.a(x))


@sequence
class WritesInto(Block):
    """Activations and sums that write into what they are given."""

    def make(self, width, other, out):
        self.a, self.b = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, x, old):
        y = self.a(x).tanh_()
        z = self.b(y)
        z += y
        return functional.leaky_relu(z, inplace=True)
