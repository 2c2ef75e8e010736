"""Numbers of layers that somebody wrote are small before they become a range."""

import pytest

from patience import no_hang
from prunus.core.errors import RecipeError
from prunus.scale.depth import layer_prefix, parse_layers, parse_pattern
from prunus.scale.shard_files import Stored


@pytest.mark.parametrize("text", ["0-99999999999", "0-999999999", "1" * 5000, "0-" + "9" * 5000, "٣", "5-3"])
def test_a_range_that_no_model_has_is_refused_at_once(text):
    with no_hang(), pytest.raises(RecipeError, match="layers to drop are") as caught:
        parse_layers(text)
    assert len(str(caught.value)) < 200


def test_a_pattern_of_thousands_of_digits_is_refused():
    with pytest.raises(RecipeError, match="a pattern is N:M"):
        parse_pattern("2:" + "4" * 5000)


@pytest.mark.parametrize("name", ["h.99999999999.w", "h." + "9" * 200_000 + ".w", "9" * 200_000])
def test_a_tensor_s_name_makes_no_huge_list_of_layers(name):
    tensors = [Stored(name, "F32", (1,), 0, 4), Stored("h.0.w", "F32", (1,), 4, 4)]
    with no_hang():
        assert layer_prefix(tensors) == ("h.", 1)
