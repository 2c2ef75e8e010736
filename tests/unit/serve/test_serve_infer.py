"""An inference request is answered as the model answers, in JSON or bytes, or refused with the field that is wrong."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from prunus.serve.serve_settings import ClientLimits
from prunus.serve.wire.infer_request import parse_infer
from prunus.serve.wire.tensor_specs import ModelSpec, TensorSpec
from serve_stand_ins import StandInEngine, ask, go, infer, served, small_bundle

__all__ = ["small_bundle"]

PATH = "/v2/models/small/infer"
ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)


def one(folder, body, headers=None, *, engine=None, limits=None, path=PATH):
    async def asked():
        _, app = served(folder, engine, limits=limits)
        return await ask(app, "POST", path, body, headers)

    return go(asked())


def test_json_in_json_out(small_bundle):
    answer = one(small_bundle, infer(ROWS, id="mine"))
    assert answer.status == 200
    made = answer.json()
    assert (made["model_name"], made["id"]) == ("small", "mine")
    assert made["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [2, 3], "data": [0, 1, 2, 6, 7, 8]}]


def test_nested_data_are_the_same_as_flat_ones(small_bundle):
    nested = infer(ROWS)
    nested["inputs"][0]["data"] = ROWS.tolist()
    assert one(small_bundle, nested).json()["outputs"] == one(small_bundle, infer(ROWS)).json()["outputs"]


def binary(rows, *, offset=0, **more):
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": rows.nbytes}
    head = json.dumps({"inputs": [tensor], **more}).encode() + b" " * offset
    return head + rows.tobytes(), {"inference-header-content-length": str(len(head))}


@pytest.mark.parametrize("offset", range(8))
def test_bytes_in_bytes_out_wherever_they_begin(small_bundle, offset):
    body, headers = binary(ROWS, offset=offset, parameters={"binary_data_output": True})
    answer = one(small_bundle, body, headers)
    n_json = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:n_json])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 24}
    np.testing.assert_array_equal(np.frombuffer(answer.body[n_json:], np.float32), ROWS[:, :3].reshape(-1))


def test_a_request_says_which_outputs_it_wants_and_in_which_form(small_bundle):
    wanted = [{"name": "output", "parameters": {"binary_data": True}}]
    answer = one(small_bundle, infer(ROWS, outputs=wanted))
    assert answer.headers["content-type"] == "application/octet-stream"


def test_compressed_bodies_are_read(small_bundle):
    body = gzip.compress(json.dumps(infer(ROWS)).encode())
    assert one(small_bundle, body, {"content-encoding": "gzip"}).status == 200


def test_a_compressed_body_is_expanded_no_further_than_a_body_may_be(small_bundle):
    body = gzip.compress(b" " * 50_000_000)
    answer = one(small_bundle, body, {"content-encoding": "gzip"}, limits={"body_bytes": 100_000})
    assert (answer.status, answer.json()["field"]) == (413, "body")


def changed(**changes):
    body = infer(ROWS)
    body["inputs"][0] |= changes
    return body


BAD = {
    "inputs": [b"{}", {"inputs": []}, {"inputs": {}}, {"inputs": [changed()["inputs"][0]] * 2}],
    "inputs[0]": [{"inputs": [3]}],
    "inputs[0].name": [changed(name="x"), changed(name=3), changed(name=["input"])],
    "inputs[0].datatype": [changed(datatype="FP64"), changed(datatype=None), changed(datatype=["FP32"])],
    "inputs[0].shape": [
        changed(shape=[2, 5]),
        changed(shape=[2, 6, 1]),
        changed(shape=[]),
        changed(shape=[-2, -6]),
        changed(shape=[0, 6]),
        changed(shape=[2.0, 6]),
        changed(shape=[True, 6]),
        changed(shape=[2**70, 6]),
        changed(shape=[100_000, 6]),
        changed(shape="2,6"),
    ],
    "inputs[0].data": [
        changed(data=[1.0] * 11),
        changed(data=["1"] * 12),
        changed(data=[None] * 12),
        changed(data=[True] * 12),
        changed(data=[[1.0] * 5, [1.0] * 7]),
        changed(data=[1e300] * 12),
        changed(data=[2**200] * 12),
        changed(data={}),
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 6]}]},
    ],
    "inputs[0].parameters": [changed(parameters=3)],
    "inputs[0].parameters.binary_data_size": [
        changed(parameters={"binary_data_size": 48}),
        changed(parameters={"binary_data_size": -1}),
        changed(parameters={"binary_data_size": "48"}),
    ],
    "outputs": [infer(ROWS, outputs=3)],
    "outputs[0].name": [infer(ROWS, outputs=[{"name": "x"}]), infer(ROWS, outputs=[{}])],
    "outputs[1].name": [infer(ROWS, outputs=[{"name": "output"}, {"name": "output"}])],
    "outputs[0].parameters": [infer(ROWS, outputs=[{"name": "output", "parameters": {"classification": 1}}])],
    "id": [infer(ROWS, id=3), infer(ROWS, id="x" * 300), infer(ROWS, id="a\nb")],
    "parameters": [infer(ROWS, parameters=[1])],
    "parameters.timeout": [infer(ROWS, parameters={"timeout": -1}), infer(ROWS, parameters={"timeout": "1"})],
    "body": [
        b"",
        b"[]",
        b"nothing",
        b"\xff\xfe{}",
        b'{"a": 1, "a": 2}',
        b'{"inputs": NaN}',
        b"[" * 100_000,
        b'{"a":' * 5000,
    ],
}


@pytest.mark.parametrize(("field", "body"), [(field, body) for field, bodies in BAD.items() for body in bodies])
def test_what_cannot_be_used_is_refused_and_its_field_named(small_bundle, field, body):
    engine = StandInEngine()
    answer = one(small_bundle, body, engine=engine)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert "\n" not in answer.json()["error"]
    assert not engine.batches


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_with_their_place(small_bundle, bad):
    rows = ROWS.copy()
    rows[1, 4] = bad
    body, headers = binary(rows)
    answer = one(small_bundle, body, headers)
    assert answer.status == 400
    assert answer.json()["error"].endswith("at [1, 4]")


@pytest.mark.parametrize("value", ["-1", "9999", "abc", "1e3", "٣", "", "+5"])
def test_the_length_of_the_json_part_is_a_whole_number_within_the_body(small_bundle, value):
    body, headers = binary(ROWS)
    answer = one(small_bundle, body, {**headers, "inference-header-content-length": value.encode().decode("latin-1")})
    assert (answer.status, answer.json()["field"]) == (400, "inference-header-content-length")


def test_bytes_that_nothing_names_are_refused(small_bundle):
    body, headers = binary(ROWS)
    assert one(small_bundle, body + b"more", headers).json()["field"] == "body"


IDS = ModelSpec("m", "1", (TensorSpec("ids", "INT64", (), 100),), (TensorSpec("output", "FP32", ()),), "t", "p")


@pytest.mark.parametrize("ids", [[-1], [100], [2**62], [-(2**63)], [2**63], [1, 1e20], [0.5], [True]])
def test_ids_that_the_model_has_no_row_for_are_refused(small_bundle, ids):
    body = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [len(ids)], "data": ids}]}
    with pytest.raises(Exception, match=r"inputs\[0\].data") as caught:
        parse_infer(json.dumps(body).encode(), None, IDS, ClientLimits())
    assert (caught.value.status, caught.value.field) == (400, "inputs[0].data")


def test_ids_that_the_model_has_are_taken_as_they_are():
    body = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [3], "data": [0, 99, 5]}]}
    (made,) = parse_infer(json.dumps(body).encode(), None, IDS, ClientLimits()).arrays
    assert (made.dtype, made.tolist()) == (np.int64, [0, 99, 5])


def test_bytes_become_an_array_without_a_copy():
    body, headers = binary(ROWS)
    spec = ModelSpec("m", "1", (TensorSpec("input", "FP32", (_six(),)),), (TensorSpec("output", "FP32", ()),), "t", "p")
    asked = parse_infer(body, int(headers["inference-header-content-length"]), spec, ClientLimits())
    assert np.shares_memory(asked.arrays[0], np.frombuffer(body, np.uint8))


def _six():
    from prunus.apply.traced.limits import Span

    return Span(6, 6)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(small_bundle):
    answer = one(small_bundle, infer(ROWS), {"content-length": "999999999999"})
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    answer = one(small_bundle, infer(np.zeros((900, 6))), limits={"body_bytes": 5000})
    assert (answer.status, answer.json()["field"]) == (413, "body")


def test_a_request_of_more_examples_than_a_batch_runs_in_parts(small_bundle):
    engine = StandInEngine()
    rows = np.arange(600, dtype=np.float32).reshape(100, 6)
    answer = one(small_bundle, infer(rows), engine=engine, limits={"batch": 30})
    assert answer.json()["outputs"][0]["data"] == rows[:, :3].reshape(-1).tolist()
    assert engine.batches == [30, 30, 30, 10]


@pytest.mark.parametrize("path", ["/v2/models/other/infer", "/v2/models/small/versions/9/infer", "/v2/models/infer"])
def test_a_model_that_is_not_there_is_404(small_bundle, path):
    answer = one(small_bundle, infer(ROWS), path=path)
    assert (answer.status, "error" in answer.json()) == (404, True)


def test_a_version_is_asked_for_by_its_name(small_bundle):
    from prunus.ship import read_manifest

    version = read_manifest(small_bundle).sha256[:12]
    answer = one(small_bundle, infer(ROWS), path=f"/v2/models/small/versions/{version}/infer")
    assert answer.json()["model_version"] == version


def test_headers_that_must_be_there_once_are_not_there_twice(small_bundle):
    async def asked():
        _, app = served(small_bundle)

        async def twice(scope, receive, send):
            scope["headers"] += [(b"host", b"localhost")]
            await app(scope, receive, send)

        return await ask(twice, "POST", PATH, infer(ROWS))

    answer = go(asked())
    assert (answer.status, answer.json()["field"]) == (400, "host")


def test_held_bytes_are_given_back_however_a_request_ends(small_bundle):
    async def asked():
        site, app = served(small_bundle, limits={"body_bytes": 3000})
        for body in (infer(ROWS), b"nothing", infer(np.zeros((900, 6))), gzip.compress(b"x" * 9000)):
            for headers in ({}, {"content-encoding": "gzip"}, {"content-encoding": "br"}):
                await ask(app, "POST", PATH, body, headers)
                await ask(app, "POST", "/nowhere", body, headers)
        return site.held_bytes

    assert go(asked()) == 0
