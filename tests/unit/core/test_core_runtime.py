"""Randomness depends on names, not on what was drawn before."""

import pytest
import torch

from prunus.core.errors import RecipeError
from prunus.core.runtime import derive_seed, generator, pick_device, seeded, single_run_settings, versions


def test_a_named_draw_does_not_depend_on_other_draws():
    first = torch.rand(3, generator=generator(0, "a"))
    torch.rand(100)
    generator(0, "b")
    assert torch.equal(first, torch.rand(3, generator=generator(0, "a")))
    assert len({derive_seed(s, n) for s in range(20) for n in range(20)}) == 400


def test_a_seeded_block_leaves_the_global_state_as_it_was():
    state = torch.get_rng_state()
    with seeded(0, "x"):
        a = torch.rand(2)
    assert torch.equal(state, torch.get_rng_state())
    with seeded(0, "x"):
        assert torch.equal(a, torch.rand(2))


def test_an_absent_device_is_named():
    with pytest.raises(RecipeError, match=r"runtime\.device.*got 'gpu9'"):
        pick_device("gpu9")
    assert pick_device("cpu") == torch.device("cpu")


def test_versions_name_what_made_the_numbers():
    assert {"python", "torch", "numpy", "prunus", "cores"} <= set(versions())


def test_settings_of_a_run_inside_of_another_leave_those_of_the_outer_one():
    def held():
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    before = held()
    with single_run_settings(None):
        outer = held()
        with single_run_settings(1):
            pass
        assert held() == outer == (True, True)
    assert held() == before
