"""What lies in deploy/ for Ray is what Ray reads: its own schema and options say so; and the commands in it are prunus's."""

import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import typer
import yaml
from ray.autoscaler._private import util
from ray.scripts.scripts import start

from prunus.cli.app import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def cluster():
    return yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())


def kuberay():
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())}


def groups():
    spec = kuberay()["RayJob"]["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def started():
    """Return the options of each ``ray start`` in the files."""
    lines = [
        line for key in ("head", "worker") for line in cluster()[f"{key}_start_ray_commands"] if "ray start" in line
    ]
    given = [[word for word in shlex.split(line.partition("ray start")[2]) if word.startswith("--")] for line in lines]
    return given + [[f"--{name}={value}" for name, value in group["rayStartParams"].items()] for group in groups()]


def test_the_launcher_takes_the_file():
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster(), schema)


def test_the_launcher_fills_the_file_in_and_finds_all_machines():
    filled = util.prepare_config(cluster())
    util.validate_config(filled)
    (kind,) = filled["available_node_types"].values()
    assert (
        kind["min_workers"] == kind["max_workers"] == filled["max_workers"] == len(cluster()["provider"]["worker_ips"])
    )


RAY_JOB = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"rayStartParams", "template"}
SCALE = {"groupName", "replicas", "minReplicas", "maxReplicas"}
"""Of the fields that ray.io/v1 has (KubeRay's rayjob_types.go and raycluster_types.go), those that the file uses."""


def test_a_ray_job_has_the_fields_of_its_kind_with_values_of_their_types():
    job = kuberay()["RayJob"]
    assert (job["apiVersion"], set(job)) == ("ray.io/v1", {"apiVersion", "kind", "metadata", "spec"})
    spec = job["spec"]
    assert set(spec) == RAY_JOB
    assert all(isinstance(spec[name], int) for name in ("ttlSecondsAfterFinished", "backoffLimit"))
    assert set(spec["rayClusterSpec"]) == CLUSTER
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    head, *workers = groups()
    assert set(head) == GROUP | {"serviceType"}
    for group in workers:
        assert set(group) == GROUP | SCALE
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups():
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # map[string]string
        (container,) = group["template"]["spec"]["containers"]
        assert {"name", "image"} <= set(container)
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_there_are_as_many_workers_as_cores():
    (workers,) = [group for group in groups() if "groupName" in group]
    cores = workers["replicas"] * int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    asked = shlex.split(kuberay()["RayJob"]["spec"]["entrypoint"])
    assert int(asked[asked.index("--workers") + 1]) == cores


def test_ray_is_started_with_options_that_it_has_and_sends_nothing():
    known = {name for parameter in start.params for name in parameter.opts}
    for options in started():
        names = {option.partition("=")[0] for option in options}
        assert names <= known
        assert "--disable-usage-stats" in names
        assert 80e6 < float(next(one for one in options if "object-store" in one).partition("=")[2]) < 1e9


def test_nobody_joins_without_the_token():
    for key in ("head", "worker"):
        (line,) = [line for line in cluster()[f"{key}_start_ray_commands"] if "ray start" in line]
        assert line.startswith("RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$RAY_AUTH_TOKEN RAY_worker_niceness=0 ")
    assert kuberay()["RayJob"]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    policy = kuberay()["NetworkPolicy"]["spec"]
    for group in groups():
        assert group["template"]["metadata"]["labels"] == policy["podSelector"]["matchLabels"]
        rights = group["template"]["spec"]["containers"][0]["securityContext"]
        assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert policy["ingress"][0]["from"] == [{"podSelector": policy["podSelector"]}]


def commands():
    launcher = (DEPLOY / "ray-cluster.yaml").read_text()
    return [re.search(r'"(prunus .*)"', launcher)[1], kuberay()["RayJob"]["spec"]["entrypoint"]]


@pytest.mark.parametrize("place", [0, 1])
def test_the_command_has_options_that_prunus_has(place):
    _, name, *given = shlex.split(commands()[place])
    command = typer.main.get_command(app).commands[name]
    context = command.make_context(name, given, resilient_parsing=True)
    assert (context.params["backend"], context.params["address"], context.params["workers"]) == ("ray", "auto", 64)
