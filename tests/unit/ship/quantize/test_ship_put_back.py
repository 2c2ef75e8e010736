"""The costliest layers go back to float, no more of them than it takes."""

from __future__ import annotations

import json

import pytest
import torch

from prunus.ship.quantize.put_back import choose


class Layers:
    """Layers with errors that are known; a file is the list of those in float."""

    def __init__(self, errors):
        self.errors, self.layers, self.looked_at = errors, tuple(errors), []

    def of_all_but(self, in_float):
        return json.dumps(sorted(in_float)).encode()

    def of_only(self, layer):
        self.looked_at.append(layer)
        return layer.encode()

    def answers(self, file):
        return [torch.tensor([1.0 + self.errors[file.decode()]])]


def chosen(errors, needed, **more):
    """Return what is chosen where the promise holds once all of ``needed`` are in float."""
    layers = Layers(errors)
    tried = []

    def keeps(file):
        tried.append(json.loads(file))
        return set(needed) <= set(tried[-1])

    return choose(layers, layers.answers, [torch.ones(1)], keeps, **more), tried, layers


def errors_of(n):
    return {f"layer{k}": (7 * k) % n + 1.0 for k in range(n)}


def test_where_all_may_be_int8_nothing_is_looked_at_one_by_one():
    found, tried, layers = chosen(errors_of(10), [])
    assert found.in_float == ()
    assert tried == [[]]
    assert layers.looked_at == []


@pytest.mark.parametrize("n_costly", range(1, 10))
def test_as_many_of_the_costliest_go_back_as_it_takes_and_no_more(n_costly):
    errors = errors_of(11)
    costliest = sorted(errors, key=lambda name: -errors[name])[:n_costly]
    found, tried, layers = chosen(errors, costliest)
    assert list(found.in_float) == costliest
    assert layers.looked_at == list(errors)
    assert found.n_tried == len(tried) <= 9
    assert found.errors == pytest.approx(errors)


def test_where_only_the_whole_file_in_float_would_do_none_is_chosen():
    errors = errors_of(6)
    assert chosen(errors, errors)[0] is None


def test_what_is_wanted_in_float_is_there_in_any_case_and_not_looked_at():
    errors = errors_of(6)
    cheapest = min(errors, key=errors.get)
    costliest = max(errors, key=errors.get)
    found, tried, layers = chosen(errors, [costliest], always=[cheapest])
    assert set(found.in_float) == {cheapest, costliest}
    assert all(cheapest in some for some in tried)
    assert cheapest not in layers.looked_at
