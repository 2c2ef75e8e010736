"""Dense and pruned are served together: shares, comparisons, promotion and roll-back; the client always gets an answer."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from prunus.serve.gate.api_keys import ApiKeys
from prunus.serve.traffic.comparison import Promise
from prunus.serve.traffic.model_traffic import Pair
from serve_stand_ins import StandInEngine, ask, go, infer, pair_served, small_bundle

__all__ = ["small_bundle"]

PATH = "/v2/models/small/infer"
ADMIN, USER = {"x-api-key": "a" * 20}, {"x-api-key": "u" * 20}
KEYS = ApiKeys.read(None, {"PRUNUS_API_KEYS": f"ops {'a' * 20} admin, shop {'u' * 20}"})
SAME = np.eye(6, 3, dtype=np.float32)


async def send(app, n, *, seed=0, ids="r"):
    """Ask n times, a row each; return the answers."""
    rows = np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)
    found = [await ask(app, "POST", PATH, infer(row[None], id=f"{ids}{k}"), USER) for k, row in enumerate(rows)]
    await compared()
    return found


async def compared():
    """Wait until what is compared beside the answers is."""
    while beside := [task for task in asyncio.all_tasks() if task.get_name() == "beside"]:
        await asyncio.wait(beside)


def versions(answers):
    return [answer.json()["model_version"] for answer in answers]


def pair(share, **promise):
    return Pair(share, Promise(**promise))


def test_a_canary_gets_its_share_and_each_of_its_answers_is_compared(small_bundle):
    async def asked():
        _, app = pair_served(small_bundle, pair(0.3), keys=KEYS)
        found = await send(app, 400)
        return versions(found), (await ask(app, "GET", "/comparison", headers=USER)).json()

    names, said = go(asked())
    n_pruned = names.count("pruned")
    assert 80 < n_pruned < 160  # 120, and four deviations
    assert names.count("dense") == 400 - n_pruned
    assert (said["answers"]["n"], said["answers"]["n_worse"], said["stage"]) == (n_pruned, 0, "canary")


def test_a_shadow_answers_nobody_and_is_compared_on_everything(small_bundle):
    async def asked():
        site, app = pair_served(small_bundle, pair(None), keys=KEYS)
        found = await send(app, 30)
        return versions(found), site.traffic

    names, traffic = go(asked())
    assert names == ["dense"] * 30
    assert traffic.comparison.answers.counts.total() == 30
    assert traffic.n_beside_left_out == 0


def test_a_pruned_model_that_decides_otherwise_is_rolled_back_by_itself(small_bundle):
    async def asked():
        site, app = pair_served(small_bundle, pair(0.5), pruned=StandInEngine(-SAME), keys=KEYS)
        before = versions(await send(app, 60))
        after = versions(await send(app, 60, seed=1, ids="s"))
        promoted = await ask(app, "POST", "/promote", headers=ADMIN)
        return before, after, site.traffic.stage, promoted

    before, after, stage, promoted = go(asked())
    assert "pruned" in before
    assert set(after) == {"dense"}
    assert stage == "rolled back"
    assert (promoted.status, "shown to be worse" in promoted.json()["error"]) == (409, True)


def test_a_model_that_is_shown_to_be_no_worse_may_be_promoted_and_taken_back(small_bundle):
    async def asked():
        _, app = pair_served(small_bundle, pair(0.5, max_disagreement=0.2), keys=KEYS)
        early = await ask(app, "POST", "/promote", headers=ADMIN)
        await send(app, 120)
        done = [await ask(app, "POST", "/promote", headers=ADMIN)]
        done.append(versions(await send(app, 5)))
        done.append((await ask(app, "POST", "/rollback", headers=ADMIN)).json()["stage"])
        done.append(versions(await send(app, 5)))
        return early.status, done

    early, (promoted, after, stage, last) = go(asked())
    assert early == 409
    assert promoted.json() == {"stage": "promoted", "version": "pruned"}
    assert (after, stage, last) == (["pruned"] * 5, "rolled back", ["dense"] * 5)


def test_promotion_may_be_forced(small_bundle):
    async def asked():
        _, app = pair_served(small_bundle, pair(0.5), keys=KEYS)
        return await ask(app, "POST", "/promote", {"force": True}, headers=ADMIN)

    assert go(asked()).json()["stage"] == "promoted"


@pytest.mark.parametrize("path", ["/promote", "/rollback", "/v2/repository/models/small/load"])
@pytest.mark.parametrize("keys", [KEYS, None])
def test_what_changes_the_server_needs_the_key_of_an_admin(small_bundle, path, keys):
    async def asked():
        site, app = pair_served(small_bundle, pair(0.5), keys=keys)
        answer = await ask(app, "POST", path, {}, headers=USER)
        return answer.status, site.traffic.stage

    assert go(asked()) == (403, "canary")


def test_where_the_pruned_model_fails_the_dense_one_answers_and_that_counts(small_bundle):
    class Fails(StandInEngine):
        def run(self, arrays):
            raise ZeroDivisionError

    async def asked():
        site, app = pair_served(small_bundle, pair(1.0), pruned=Fails(), keys=KEYS)
        found = await send(app, 40)
        return [answer.status for answer in found], versions(found), site.traffic.stage

    statuses, names, stage = go(asked())
    assert statuses == [200] * 40
    assert set(names) == {"dense"}
    assert stage == "rolled back"


def test_labels_decide_who_is_right(small_bundle):
    """The two differ on most, but labels say that the pruned one is right."""

    async def asked():
        _, app = pair_served(small_bundle, pair(None, max_disagreement=0.999), pruned=StandInEngine(-SAME), keys=KEYS)
        rows = np.random.default_rng(0).standard_normal((150, 6)).astype(np.float32)
        for k, row in enumerate(rows):
            await send_one(app, row, f"q{k}")
            label = "abc"[int((-row[:3]).argmax())]
            said = await ask(app, "POST", "/feedback", {"id": f"q{k}", "labels": [label]}, headers=USER)
            assert said.json() == {"id": f"q{k}", "compared": True}
        return (await ask(app, "GET", "/comparison", headers=USER)).json()

    said = go(asked())
    assert said["labels"]["shown"] == "no worse"
    assert said["labels"]["n_better"] > 100
    assert said["verdict"] == "no worse"


async def send_one(app, row, request_id):
    await ask(app, "POST", PATH, infer(row[None], id=request_id), USER)
    await compared()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"id": "r0", "labels": ["d"]}, 400, "labels[0]"),
        ({"id": "r0", "labels": [3]}, 400, "labels[0]"),
        ({"id": "r0", "labels": [True]}, 400, "labels[0]"),
        ({"id": "r0", "labels": [0, 1]}, 400, "labels"),
        ({"id": "nobody", "labels": [0]}, 404, "id"),
        ({"id": 3, "labels": [0]}, 400, "id"),
        ({"labels": [0]}, 400, "id"),
        ({"id": "r0"}, 400, "labels"),
        ({"id": "r0", "labels": [0], "more": 1}, 400, "more"),
    ],
)
def test_feedback_that_fits_no_request_is_refused(small_bundle, body, status, field):
    async def asked():
        _, app = pair_served(small_bundle, pair(None), keys=KEYS)
        await send(app, 1)
        return await ask(app, "POST", "/feedback", body, headers=USER)

    answer = go(asked())
    assert (answer.status, answer.json()["field"]) == (status, field)


def test_a_request_has_its_labels_once(small_bundle):
    async def asked():
        _, app = pair_served(small_bundle, pair(None), keys=KEYS)
        await send(app, 1)
        return [(await ask(app, "POST", "/feedback", {"id": "r0", "labels": 0}, headers=USER)).status for _ in range(2)]

    assert go(asked()) == [200, 409]


def test_a_version_that_is_asked_for_answers_itself_and_is_not_compared(small_bundle):
    async def asked():
        site, app = pair_served(small_bundle, pair(1.0), keys=KEYS)
        answer = await ask(app, "POST", "/v2/models/small/versions/dense/infer", infer([[1.0] * 6]), USER)
        return answer.json()["model_version"], site.traffic.comparison.answers.counts.total()

    assert go(asked()) == ("dense", 0)


def test_comparisons_are_left_out_where_the_queue_is_long(small_bundle):
    async def asked():
        slow = StandInEngine()
        slow.go.clear()
        site, app = pair_served(small_bundle, pair(None), pruned=slow, keys=KEYS, limits={"queued": 8})
        found = [await ask(app, "POST", PATH, infer([[1.0] * 6]), USER) for _ in range(30)]
        left_out = site.traffic.n_beside_left_out
        slow.go.set()
        await site.traffic.drained()
        return {answer.status for answer in found}, left_out

    statuses, left_out = go(asked())
    assert statuses == {200}
    assert left_out >= 20


def test_the_comparison_is_in_the_metrics(small_bundle):
    async def asked():
        _, app = pair_served(small_bundle, pair(None), keys=KEYS)
        await send(app, 10)
        return (await ask(app, "GET", "/metrics", headers=USER)).body.decode()

    text = go(asked())
    assert 'prunus_compared_examples{by="answers"} 10.0' in text
    assert 'prunus_answering{version="dense"} 1.0' in text
    assert 'prunus_model_seconds_count{version="pruned"}' in text


def test_only_so_much_is_remembered():
    from prunus.serve.traffic.recent_answers import RecentAnswers

    recent = RecentAnswers(most=50, most_bytes=100_000)
    for number in range(1000):
        recent.keep(str(number), [np.zeros((1, 6), np.float32)], 24, "v", [np.zeros((1, 3), np.float32)])
    assert recent.find("949") is None
    assert recent.find("999") is not None
    recent.keep("large", [np.zeros((1, 6))], 90_000, "v", [])
    assert recent.find("large") is None
    for number in range(1000):
        recent.keep(str(number), [], 5000, "v", [])
    assert len(recent._kept) < 20
