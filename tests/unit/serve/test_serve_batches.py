"""What waits when the model gets free is one batch; nothing is lost, mixed up or kept waiting for company."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import PATIENCE_S
from prunus.serve.refusal import Refusal
from prunus.serve.running import batcher as batcher_module
from prunus.serve.running.batcher import Batcher
from prunus.serve.serve_settings import ClientLimits
from serve_stand_ins import StandInEngine, ask, go, infer, served, small_bundle

__all__ = ["small_bundle"]


def rows(n, first=0.0):
    made = np.zeros((n, 6), np.float32)
    made[:, 0] = first
    made[:, 1] = np.arange(n)
    return made


async def many(batcher, requests, timeout_s=PATIENCE_S):
    found = [batcher.answer([one], one.nbytes, timeout_s) for one in requests]
    return await asyncio.gather(*found, return_exceptions=True)


async def behind_one(engine, requests, **limits):
    """Return the answers to requests that come while the model is busy with another, and the sizes of the batches."""
    batcher = Batcher(engine, ClientLimits(**limits))
    engine.go.clear()
    first = asyncio.ensure_future(batcher.answer([rows(1)], 24, PATIENCE_S))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(many(batcher, requests))
    for _ in range(3):
        await asyncio.sleep(0)
    engine.go.set()
    answers = await waiting
    await first
    await batcher.drained()
    assert (batcher.n_waiting, batcher.waiting_bytes) == (0, 0)
    batcher.close()
    return answers, engine.batches[1:]


def test_what_waits_is_one_batch_and_each_gets_its_own_rows():
    requests = [rows(1 + n % 3, n) for n in range(10)]
    answers, batches = go(behind_one(StandInEngine(), requests))
    assert batches == [sum(map(len, requests))]
    for asked, (answer,) in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer, asked[:, :3])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 16))
@settings(max_examples=30, deadline=None)
def test_batches_are_as_large_as_they_may_be_and_in_the_order_of_arrival(sizes, most):
    answers, batches = go(behind_one(StandInEngine(), [rows(n, place) for place, n in enumerate(sizes)], batch=most))
    expected, filled = [], 0
    for n in sizes:  # first come, first served, by hand; what is larger than a batch runs in parts
        if filled and filled + n > most:
            expected.append(filled)
            filled = 0
        filled += n
    expected.append(filled)
    parts = [min(most, n - at) for n in expected for at in range(0, n, most)]
    assert batches == parts
    assert [len(answer[0]) for answer in answers] == sizes


def test_requests_of_another_shape_run_in_a_batch_of_their_own():
    class AnyWidth(StandInEngine):
        def run(self, arrays):
            self.go.wait(PATIENCE_S)
            self.batches.append(arrays[0].shape)
            return [arrays[0].sum(axis=1, keepdims=True)]

    requests = [np.ones((1, 2 + n % 2), np.float32) * n for n in range(6)]
    answers, batches = go(behind_one(AnyWidth(), requests))
    assert batches == [(3, 2), (3, 3)]
    assert [float(answer[0, 0]) for (answer,) in answers] == [float(one.sum()) for one in requests]


def test_one_request_that_the_model_fails_on_spoils_no_other():
    answers, _ = go(behind_one(StandInEngine(), [rows(1, 1), rows(1, 666), rows(1, 3)]))
    assert [getattr(answer, "status", 200) for answer in answers] == [200, 422, 200]
    assert float(answers[2][0][0, 0]) == 3


def test_an_answer_that_overflows_is_refused_and_spoils_no_other():
    engine = StandInEngine(np.eye(6, 3, dtype=np.float32) * 1e30)
    answers, _ = go(behind_one(engine, [rows(1, 1), rows(1, 1e20), rows(1, 3)]))
    assert [getattr(answer, "status", 200) for answer in answers] == [200, 422, 200]
    assert answers[1].field == "inputs"


def test_a_full_queue_refuses_with_429_and_says_when_to_come_again():
    answers, batches = go(behind_one(StandInEngine(), [rows(1, n) for n in range(8)], queued=5))
    assert [getattr(answer, "status", 200) for answer in answers] == [200] * 5 + [429] * 3
    assert (b"retry-after", b"1") in answers[-1].headers()
    assert batches == [5]


def test_a_queue_that_holds_too_many_bytes_refuses_with_429():
    answers, _ = go(behind_one(StandInEngine(), [rows(10) for _ in range(4)], held_bytes=500))
    assert [getattr(answer, "status", 200) for answer in answers] == [200, 200, 429, 429]


def test_a_request_whose_time_is_up_gets_504_and_never_runs():
    async def asked():
        engine = StandInEngine()
        batcher = Batcher(engine, ClientLimits())
        engine.go.clear()
        first = asyncio.ensure_future(batcher.answer([rows(1)], 24, PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await batcher.answer([rows(7)], 24, 0.02)
        engine.go.set()
        await first
        await batcher.drained()
        batcher.close()
        return caught.value.status, engine.batches

    assert go(asked()) == (504, [1])


def test_a_lack_of_memory_is_503_and_the_model_goes_on():
    class Hungry(StandInEngine):
        def run(self, arrays):
            if len(arrays[0]) == 5:
                raise MemoryError
            return super().run(arrays)

    async def asked():
        batcher = Batcher(Hungry(), ClientLimits())
        found = await many(batcher, [rows(5)]) + await many(batcher, [rows(1)])
        batcher.close()
        return [getattr(answer, "status", 200) for answer in found]

    assert go(asked()) == [503, 200]


def test_a_client_that_goes_away_is_not_waited_for():
    async def asked():
        engine = StandInEngine()
        batcher = Batcher(engine, ClientLimits())
        engine.go.clear()
        first = asyncio.ensure_future(batcher.answer([rows(1)], 24, PATIENCE_S))
        gone = asyncio.ensure_future(batcher.answer([rows(3)], 24, PATIENCE_S))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        engine.go.set()
        await first
        await batcher.drained()
        batcher.close()
        return engine.batches

    assert go(asked()) == [1]


def test_a_model_whose_answers_depend_on_the_batch_gets_one_request_at_a_time():
    async def asked():
        engine = StandInEngine()
        batcher = Batcher(engine, ClientLimits(), alone=True)
        await many(batcher, [rows(2) for _ in range(4)])
        batcher.close()
        return engine.batches

    assert go(asked()) == [2, 2, 2, 2]


def test_the_deadline_of_a_request_is_its_header_or_its_parameter(small_bundle):
    async def asked():
        engine = StandInEngine()
        _, app = served(small_bundle, engine)
        engine.go.clear()
        path = "/v2/models/small/infer"
        by_header = await ask(app, "POST", path, infer(rows(1)), {"x-deadline-ms": "30"})
        by_parameter = await ask(app, "POST", path, infer(rows(1), parameters={"timeout": 30_000}))
        wrong = [await ask(app, "POST", path, infer(rows(1)), {"x-deadline-ms": value}) for value in ("0", "x", "-5")]
        engine.go.set()
        return [by_header.status, by_parameter.status, *((one.status, one.json()["field"]) for one in wrong)]

    assert go(asked()) == [504, 504, *[(400, "x-deadline-ms")] * 3]


def test_a_request_that_is_all_there_is_wakes_no_thread_where_the_model_takes_a_moment(monkeypatch):
    monkeypatch.setattr(batcher_module, "_MOMENT_S", 1000.0)

    class Noted(StandInEngine):
        def run(self, arrays):
            self.batches.append(threading.current_thread() is threading.main_thread())
            return [arrays[0][:, :3]]

    async def asked():
        engine, there = Noted(), [1]
        batcher = Batcher(engine, ClientLimits(), in_flight=lambda: there[0])
        for n_examples, n_requests in ((1, 1), (1, 1), (2, 1), (1, 2), (1, 1)):
            there[0] = n_requests
            (found,) = await batcher.answer([rows(n_examples, 5)], 24, PATIENCE_S)
            assert found[0, 0] == 5
        batcher.close()
        return engine.batches

    # The first one shows how long it takes.
    assert go(asked()) == [False, True, False, False, True]


def test_a_model_that_takes_longer_never_holds_up_the_event_loop(monkeypatch):
    monkeypatch.setattr(batcher_module, "_MOMENT_S", 0.0)

    class Slow(StandInEngine):
        def run(self, arrays):
            self.batches.append(threading.current_thread() is threading.main_thread())
            return [arrays[0][:, :3]]

    async def asked():
        engine = Slow()
        batcher = Batcher(engine, ClientLimits(), in_flight=lambda: 1)
        for _ in range(4):
            await batcher.answer([rows(1)], 24, PATIENCE_S)
        batcher.close()
        return engine.batches

    assert go(asked()) == [False] * 4


def test_one_interruption_says_nothing_of_how_long_the_model_takes():
    async def asked():
        batcher = Batcher(StandInEngine(), ClientLimits())
        found = []
        for seconds in (0.001, 0.001, 0.001, 3.0, 0.001, *[0.5] * 20):
            batcher._learn(1, seconds)
            found.append(batcher._single_s)
        batcher._learn(2, 9.0)  # of two examples it says nothing
        batcher.close()
        return found

    found = go(asked())
    assert (found[4], found[-1]) == (0.001, 0.5)


def test_a_request_that_fails_at_once_is_refused_as_any_other(monkeypatch):
    monkeypatch.setattr(batcher_module, "_MOMENT_S", 1000.0)

    async def asked():
        batcher = Batcher(StandInEngine(), ClientLimits(), in_flight=lambda: 1)
        found = []
        for first in (1, 666, 2):
            found += await many(batcher, [rows(1, first)])
        batcher.close()
        return [getattr(answer, "status", 200) for answer in found]

    assert go(asked()) == [200, 422, 200]
