"""Do workers give what one process gives, and does a wrong shard, a wrong function or a death cost no other?"""

import sys
from pathlib import Path

import pytest

from prunus.core.errors import OutputError, RecipeError
from prunus.scale.dispatch import Dispatch, Failure, map_shards, open_workers, run_trials

sys.path.insert(0, str(Path(__file__).parent))
from dispatch_jobs import Job, OnlyHere, Sums

SHARDS = [
    ("", 0),
    ("die once", 1),
    ("pass once", 2),
    ("wrong", 3),
    ("die", 4),
    ("pass", 5),
    ("odd", 6),
    ("lambda", 7),
    ("", 8),
]


def values(found):
    return {number: one if isinstance(one, Failure) else one[0] for number, one in found}


def test_what_hurts_one_shard_is_tried_again_or_named_and_costs_no_other(tmp_path):
    found = values(map_shards(Job(str(tmp_path)), SHARDS, workers=2, retries=1))
    assert {number: one for number, one in found.items() if not isinstance(one, Failure)} == {0: 0, 1: 1, 2: 4, 8: 64}
    assert found[3] == Failure("wrong data", 1)
    assert found[4] == Failure("the process that had it was killed by signal 9, perhaps for lack of memory", 2)
    assert found[5] == Failure("a passing fault", 2)
    assert found[6] == Failure("ValueError: two lines", 2)
    assert found[7].message.startswith("the answer can't be pickled: ")
    assert found[7].n_tries == 1
    harmless = [(what, n) for what, n in SHARDS if what not in ("die", "die once", "lambda")]
    (tmp_path / "2").unlink()
    here = {
        harmless[place][1]: one for place, one in values(map_shards(Job(str(tmp_path)), harmless, retries=1)).items()
    }
    assert here == {n: found[n] for _, n in harmless}


def test_workers_stay_from_batch_to_batch_and_a_killed_one_is_replaced(tmp_path):
    with open_workers(Job(), workers=2) as opened:
        first = dict(opened.map([("", n) for n in range(4)]))
        second = dict(opened.map([("", n) for n in range(4)]))
    answers = [*first.values(), *second.values()]
    assert len({process for _, process, _ in answers}) == 2
    assert sum(calls == 1 for *_, calls in answers) == 2  # each loaded the function once


@pytest.mark.parametrize("workers", [1, 2])
def test_an_output_that_cannot_be_written_ends_all(workers):
    with pytest.raises(OutputError, match="no space left"):
        list(map_shards(Job(), [("full", 0), ("", 1)], workers=workers))


def test_a_function_that_cannot_go_to_workers_is_refused_in_one_line():
    with pytest.raises(RecipeError, match=r"can be pickled: got .*<lambda>") as refused:
        list(map_shards(lambda shard: shard, [1, 2], workers=2))
    assert "\n" not in str(refused.value)
    assert dict(map_shards(lambda shard: shard + 1, [1, 2])) == {0: 2, 1: 3}
    (_, failure), *_ = map_shards(OnlyHere(), [1], workers=2)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in failure.message
    assert failure.n_tries == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_trials_are_told_in_their_order_and_are_the_same_for_any_number_of_workers(workers):
    study = Sums(3)
    seen = sorted(answer[0] for _, answer in run_trials(Job(), study, workers=workers))
    assert study.told == [[1, 4, 9], [0, 1, 4], [25, 36, 49]]
    assert seen == sorted(one for batch in study.told for one in batch)


def test_wrong_settings_are_refused():
    with pytest.raises(RecipeError, match="no backend 'locale': did you mean 'local'"):
        list(map_shards(len, [], backend="locale"))
    with pytest.raises(RecipeError, match="workers >= 1: got 0"):
        list(map_shards(len, [], workers=0))
    with pytest.raises(RecipeError, match="retries >= 0: got -1"):
        list(map_shards(len, [], retries=-1))
    assert dict(map_shards(len, ["ab"], backend=Dispatch(workers=4), workers=1)) == {0: 2}
