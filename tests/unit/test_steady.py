"""The clock that counts work, and what ends a hang: what other tests take for granted."""

from __future__ import annotations

import socket

import pytest
import torch
from torch import nn

from patience import free_port, no_hang, steps_of, until
from prunus.core.recipes import recipe
from prunus.evaluate import measure_latency

CONFIG = recipe.Latency(batch_size=4, repeats=5, warm_up=1)


def test_by_the_clock_that_counts_work_a_model_takes_its_arithmetic_its_bytes_and_its_calls(work_clock):
    rows, n_in, n_out = 4, 200, 300
    before = work_clock.read()
    found = measure_latency({"one": nn.Linear(n_in, n_out)}, torch.zeros(rows, n_in), CONFIG).milliseconds["one"]
    numbers = rows * n_in + n_in * n_out + n_out + rows * n_out
    transposed, product = 2e-6, 2e-6 + 1e-10 * rows * n_in * n_out + 1e-10 * 4 * numbers
    assert found.low == found.high == pytest.approx(1000 * (transposed + product))
    spent = work_clock.read() - before
    torch.zeros(1000) + 1
    assert work_clock.read() - before == spent, "only what is timed takes time"


def test_what_hangs_is_ended():
    with pytest.raises(AssertionError, match=r"more than 0\.05 s of processor time"), no_hang(0.05):
        while True:
            pass
    with no_hang(0.05):
        pass


def test_a_loop_counts_as_often_as_it_goes_round():
    few, many = (steps_of(lambda n=n: [value + 1 for value in range(n)]) for n in (10, 1010))
    assert many - few == 1000


def test_what_comes_is_waited_for_and_a_free_port_is_none_that_the_system_gives():
    came = iter([0, 0, 7])
    assert until(lambda: next(came)) == 7
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_port() < taken.getsockname()[1]
