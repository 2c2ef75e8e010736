"""What lies in deploy/ can be read by what reads it, asks for no more than it needs, and starts the command as it is."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from prunus.cli.app import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def dockerfile():
    """Return the instructions of the last stage."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    last = max(number for number, (word, _) in enumerate(lines) if word == "FROM")
    return [(word, " ".join(rest.split())) for word, rest in lines[last:]]


def only(word):
    (found,) = [rest for one, rest in dockerfile() if one == word]
    return found


def unit():
    parser = configparser.ConfigParser(strict=False, delimiters=("=",), interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / "prunus-serve.service").read_text())
    return parser["Service"]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["model"]


def kserve():
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text())}


def container():
    (found,) = kserve()["ServingRuntime"]["spec"]["containers"]
    return found


COMMANDS = {
    "Dockerfile": lambda: json.loads(only("CMD")),
    "compose": lambda: compose()["command"],
    "unit": lambda: shlex.split(unit()["ExecStart"])[2:],
    "kserve": lambda: container()["args"],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_the_command_is_started_with_options_that_it_has(what, tmp_path):
    given = COMMANDS[what]()
    command = typer.main.get_command(app).commands["serve"]
    parsed = command.make_context("serve", list(given)).params
    assert str(parsed["bundle"]).startswith("/")
    assert parsed["cache"] is not None
    assert parsed["drain"] > 0


def test_the_image_runs_without_root_and_starts_the_server():
    assert only("USER") == "10001:10001"
    assert json.loads(only("ENTRYPOINT")) == ["prunus", "serve"]
    assert only("STOPSIGNAL") == "SIGTERM"
    assert "/v2/health/ready" in only("HEALTHCHECK")
    assert [rest for word, rest in dockerfile() if word == "COPY"] == ["--from=build /opt/prunus /opt/prunus"]


def test_the_container_may_write_to_nothing_and_gets_no_rights():
    made = compose()
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert made["user"] == "10001:10001"
    assert all(one["read_only"] for one in made["volumes"])
    assert made["ports"] == ["127.0.0.1:8000:8000"]
    assert made["build"]["dockerfile"] == "deploy/Dockerfile"


HARDENED = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictNamespaces": "yes",
    "CapabilityBoundingSet": "",
    "IPAddressDeny": "any",
    "UMask": "0077",
}


@pytest.mark.parametrize("key", HARDENED)
def test_the_service_is_hardened(key):
    assert unit()[key] == HARDENED[key]


def test_time_to_end_is_longer_than_draining_and_the_deadline():
    from prunus.serve import ClientLimits

    drain = float(re.search(r"--drain (\d+)", unit()["ExecStart"])[1])
    assert float(unit()["TimeoutStopSec"]) > drain + ClientLimits().deadline_s
    assert float(compose()["stop_grace_period"].removesuffix("s")) > 5 + ClientLimits().deadline_s
    grace = kserve()["InferenceService"]["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace > 10 + ClientLimits().deadline_s


def test_the_manifest_is_of_kserve_and_its_names_fit_each_other():
    made = kserve()
    assert made["ServingRuntime"]["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert made["InferenceService"]["apiVersion"] == "serving.kserve.io/v1beta1"
    model = made["InferenceService"]["spec"]["predictor"]["model"]
    assert model["runtime"] == made["ServingRuntime"]["metadata"]["name"]
    assert model["modelFormat"]["name"] == made["ServingRuntime"]["spec"]["supportedModelFormats"][0]["name"]
    assert model["protocolVersion"] == "v2" == made["ServingRuntime"]["spec"]["protocolVersions"][0]
    assert made["NetworkPolicy"]["spec"]["egress"] == []
    labels = made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert labels == {"serving.kserve.io/inferenceservice": made["InferenceService"]["metadata"]["name"]}


def test_the_pod_is_as_narrow_as_the_container():
    rights = container()["securityContext"]
    assert (rights["runAsNonRoot"], rights["readOnlyRootFilesystem"]) == (True, True)
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    volumes = {one["name"] for one in kserve()["ServingRuntime"]["spec"]["volumes"]}
    assert {one["name"] for one in container()["volumeMounts"]} == volumes
    port = container()["ports"][0]["containerPort"]
    assert str(port) in container()["args"]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert container()[probe]["httpGet"]["port"] == port
        assert container()[probe]["httpGet"]["path"] in ("/v2/health/ready", "/v2/health/live")
