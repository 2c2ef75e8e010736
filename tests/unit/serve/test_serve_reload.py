"""Another bundle takes the place of the served one without a request lost, or the old one goes on and it is said why."""

from __future__ import annotations

import asyncio
import json
import shutil

import numpy as np
import pytest

from prunus.core.errors import BundleError
from prunus.serve.gate.api_keys import ApiKeys
from prunus.serve.traffic import replacement
from serve_stand_ins import StandInEngine, ask, go, infer, loaded, save_small, served, small_bundle

__all__ = ["small_bundle"]

PATH = "/v2/models/small/infer"
LOAD = "/v2/repository/models/small/load"
ADMIN, USER = {"x-api-key": "a" * 20}, {"x-api-key": "u" * 20}
KEYS = ApiKeys.read(None, {"PRUNUS_API_KEYS": f"ops {'a' * 20} admin, shop {'u' * 20}"})
SAME = np.eye(6, 3, dtype=np.float32)


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("other") / "small", seed=1)


@pytest.fixture
def place(tmp_path, small_bundle):
    """A folder with the bundle that is served first."""
    return shutil.copytree(small_bundle, tmp_path / "small")


@pytest.fixture
def engines(monkeypatch):
    """What is loaded next, by the folder's name; None fails to verify."""
    made = {}

    def load(folder, name, settings, say):
        from prunus.serve.running.verified_bundle import verified

        verified(folder, settings.policy)
        return loaded(folder, made.get(folder.name) or StandInEngine(), **made.get("spec", {}))

    monkeypatch.setattr(replacement, "load_served", load)
    return made


def put(bundle, place):
    shutil.rmtree(place)
    shutil.copytree(bundle, place)


def version(folder):
    return json.loads((folder / "manifest.json").read_text())["sha256"][:12]


def test_a_new_bundle_answers_from_now_on_and_the_old_one_may_come_back(place, other_bundle, small_bundle, engines):
    async def asked():
        site, app = served(place, keys=KEYS)
        same = await ask(app, "POST", LOAD, headers=ADMIN)
        put(other_bundle, place)
        new = await ask(app, "POST", LOAD, headers=ADMIN)
        answer = await ask(app, "POST", PATH, infer([[1.0] * 6]), USER)
        back = await ask(app, "POST", "/rollback", headers=ADMIN)
        last = await ask(app, "POST", PATH, infer([[1.0] * 6]), USER)
        none = await ask(app, "POST", "/rollback", headers=ADMIN)
        await site.traffic.drained()
        await site.replacement.drained()
        return same.json(), new.json(), answer.json(), back.json(), last.json(), none.status

    same, new, answer, back, last, none = go(asked())
    first, second = version(small_bundle), version(other_bundle)
    assert same == {"name": "small", "version": first, "changed": False}
    assert new == {"name": "small", "version": second, "changed": True}
    assert [answer["model_version"], back["version"], last["model_version"]] == [second, first, first]
    assert none == 409


def test_no_request_is_lost_or_wrong_while_models_are_replaced(place, other_bundle, small_bundle, engines):
    """Every answer is that of the version that it names."""
    matrices = {version(small_bundle): SAME, version(other_bundle): 2 * SAME}

    async def asked():
        site, app = served(place, StandInEngine(SAME), keys=KEYS)
        rng = np.random.default_rng(0)
        done, ends = [], False

        async def client():
            while not ends:
                row = rng.standard_normal((1, 6)).astype(np.float32)
                done.append((row, await ask(app, "POST", PATH, infer(row), USER)))

        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        seen = []
        for turn in range(12):
            bundle = (other_bundle, small_bundle)[turn % 2]
            put(bundle, place)
            engines["small"] = StandInEngine(matrices[version(bundle)])
            seen.append((await ask(app, "POST", LOAD, headers=ADMIN)).json())
            n_before = len(done)
            while len(done) < n_before + 2 * len(clients):  # so many that some came after the load
                await asyncio.sleep(0.001)
        ends = True
        await asyncio.gather(*clients)
        await site.traffic.drained()
        await site.replacement.drained()
        return done, seen

    done, seen = go(asked())
    assert all(one["changed"] for one in seen)
    used = set()
    for row, answer in done:
        assert answer.status == 200
        made = answer.json()
        used.add(made["model_version"])
        np.testing.assert_allclose(made["outputs"][0]["data"], (row @ matrices[made["model_version"]])[0], rtol=1e-5)
    assert used == set(matrices)


async def refused(place, change, engines, **parameters):
    """Return the answer to a load after a change, and that the old model still answers."""
    site, app = served(place, keys=KEYS)
    await ask(app, "POST", PATH, infer([[1.0] * 6], id="r"), USER)
    change(app)
    answer = await ask(app, "POST", LOAD, {"parameters": parameters} if parameters else b"", headers=ADMIN)
    after = await ask(app, "POST", PATH, infer([[1.0] * 6]), USER)
    assert after.status == 200
    assert after.json()["model_version"] == site.traffic.first.spec.version
    return answer


def damaged(place):
    def change(app):
        weights = bytearray((place / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (place / "model.safetensors").write_bytes(weights)

    return change


@pytest.mark.parametrize("parameters", [{}, {"force": True}])
def test_a_bundle_that_does_not_verify_is_never_loaded(place, engines, parameters):
    answer = go(refused(place, damaged(place), engines, **parameters))
    assert answer.status == 422
    assert answer.json()["error"].startswith("not loaded, the old model goes on: ")


def test_a_bundle_that_is_gone_is_not_loaded(place, engines):
    answer = go(refused(place, lambda app: shutil.rmtree(place), engines))
    assert answer.status == 422


@pytest.mark.parametrize("parameters", [{}, {"force": True}])
def test_a_bundle_that_takes_other_inputs_or_means_others_is_not_loaded(place, other_bundle, engines, parameters):
    engines["spec"] = {"class_names": ("x", "y", "z")}
    answer = go(refused(place, lambda app: put(other_bundle, place), engines, **parameters))
    assert (answer.status, "classes are others" in answer.json()["error"]) == (409, True)


def test_a_bundle_that_does_worse_on_labelled_requests_is_loaded_by_force_only(
    place, other_bundle, small_bundle, engines
):
    engines["small"] = StandInEngine(-SAME)

    async def asked(force):
        _, app = served(place, StandInEngine(SAME), keys=KEYS)
        rows = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
        for number, row in enumerate(rows):
            await ask(app, "POST", PATH, infer(row[None], id=str(number)), USER)
            label = int(row[:3].argmax())
            assert (await ask(app, "POST", "/feedback", {"id": str(number), "labels": [label]}, USER)).status == 200
        put(other_bundle, place)
        return await ask(app, "POST", LOAD, {"parameters": {"force": force}}, headers=ADMIN)

    answer = go(asked(False))
    assert answer.status == 409
    assert "does worse on 40 examples" in answer.json()["error"]
    shutil.rmtree(place)
    shutil.copytree(small_bundle, place)
    assert go(asked(True)).json()["changed"]


def test_a_bundle_whose_run_broke_its_contract_is_not_loaded(
    tmp_path, other_bundle, small_bundle, engines, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(small_bundle, run / "bundle")
    (run / "record.json").write_text("{}")
    answer = go(refused(run / "bundle", lambda app: put(other_bundle, run / "bundle"), engines))
    assert (answer.status, "record of its run" in answer.json()["error"]) == (409, True)

    class Search:
        contract, result = object(), None

    monkeypatch.setattr(replacement, "load_record", lambda path: type("R", (), {"searches": [Search()]}))
    put(small_bundle, run / "bundle")
    answer = go(refused(run / "bundle", lambda app: put(other_bundle, run / "bundle"), engines))
    assert (answer.status, "didn't keep its contract" in answer.json()["error"]) == (409, True)


def test_bundles_are_loaded_by_name_from_one_folder_and_nowhere_else(place, other_bundle, tmp_path, engines):
    root = tmp_path / "all"
    shutil.copytree(other_bundle, root / "new")
    (root / "link").symlink_to(other_bundle)

    async def asked():
        _, app = served(place, keys=KEYS, bundles=root)
        names = ("../small", "/etc", ".", "", "a/b", "link", "none", "new\x00", "new")
        bodies = [{"parameters": {"bundle": name}} for name in names]
        return [(await ask(app, "POST", LOAD, body, headers=ADMIN)).status for body in bodies]

    assert go(asked()) == [400, 400, 400, 400, 400, 404, 404, 400, 200]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"parameters": {"path": "/"}}, "parameters.path"),
        ({"parameters": {"force": 1}}, "parameters.force"),
        ({"parameters": []}, "parameters"),
        ({"more": 1}, "more"),
        (b"{", "body"),
    ],
)
def test_a_load_that_asks_for_something_else_is_refused(place, engines, body, field):
    async def asked():
        _, app = served(place, keys=KEYS)
        return await ask(app, "POST", LOAD, body, headers=ADMIN)

    answer = go(asked())
    assert (answer.status, answer.json()["field"]) == (400, field)


def test_one_bundle_is_loaded_at_a_time(place, engines):
    async def asked():
        _, app = served(place, keys=KEYS)
        found = await asyncio.gather(*(ask(app, "POST", LOAD, headers=ADMIN) for _ in range(5)))
        return sorted(answer.status for answer in found)

    assert go(asked()) == [200, 409, 409, 409, 409]


def test_a_bundle_without_the_signature_that_is_asked_for_is_not_loaded(place, tmp_path):
    from prunus.serve.running.verified_bundle import verified
    from prunus.ship.signing import VerifyPolicy

    key = tmp_path / "key.pem"
    key.write_text("")
    with pytest.raises(BundleError):
        verified(place, VerifyPolicy(public_key=key))


def test_a_bundle_that_was_signed_as_an_older_version_is_not_loaded(place, small_bundle):
    from dataclasses import replace
    from pathlib import Path

    from prunus.serve.running.served_model import ServedModel
    from prunus.serve.serve_settings import ClientLimits, ServeSettings
    from prunus.ship.signing import VerifyPolicy

    class Found:
        version = "1.4"

    async def asked(policy, found):
        model = ServedModel(replace(loaded(small_bundle), found=found), ClientLimits())
        return replacement._no_older(ServeSettings(policy=policy), model).policy

    key = VerifyPolicy(public_key=Path("key.pem"), min_version="1.0")
    assert go(asked(key, Found())).min_version == "1.4"
    assert go(asked(key, None)).min_version == "1.0"
    assert go(asked(None, Found())) is None
