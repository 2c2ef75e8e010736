"""What is promised to packagers holds: the lock fits the ranges, and has the oldest torch that is allowed."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def required():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "requirements.py"], capture_output=True, text=True, check=True
    )
    return [Requirement(line) for line in done.stdout.splitlines()]


def test_the_lock_is_within_the_ranges_and_leaves_out_two_extras_at_most():
    versions = locked()
    names = {canonicalize_name(requirement.name): requirement for requirement in required()}
    assert names.keys() - versions.keys() <= {"peft", "mnn"}
    for name, requirement in names.items():
        assert name not in versions or requirement.specifier.contains(versions[name]), str(requirement)


def test_the_oldest_torch_that_is_allowed_is_the_one_that_all_tests_run_with():
    (torch,) = [requirement for requirement in required() if requirement.name == "torch"]
    (bound,) = [specifier.version for specifier in torch.specifier if specifier.operator == ">="]
    assert locked()["torch"].startswith(f"{bound}.")


def test_a_python_that_is_too_old_or_absent_is_one_line():
    for python in ("", "/bin/false", "no-such-python"):
        done = subprocess.run(
            ["sh", ROOT / "tools" / "check_python.sh", python], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "PYTHON=/path/to/python3.12" in done.stderr
        assert done.stderr.count("\n") == 1
    subprocess.run(["sh", ROOT / "tools" / "check_python.sh", sys.executable], check=True)


def test_the_package_says_what_it_is():
    assert PROJECT["requires-python"] == ">=3.11"
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)} <= set(PROJECT["classifiers"])


def test_the_docs_have_a_lock_of_their_own_within_their_ranges():
    lines = (ROOT / "requirements-docs.lock").read_text().splitlines()
    versions = {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines if "==" in line)
    }
    for requirement in map(Requirement, PROJECT["optional-dependencies"]["docs"]):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), str(requirement)
    assert not versions.keys() & {"torch", "numpy"}
