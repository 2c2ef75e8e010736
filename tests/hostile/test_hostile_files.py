"""Whatever somebody crafts, each loader refuses it in one line: no code runs, nothing crashes, hangs or fills the memory."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections import Counter

import pytest

from canary import MODULE
from hostile_cases import CASES, LOADERS, copy, honest
from hostile_child import CPU_SECONDS, outcome_of, outcomes_of
from hostile_table import HEAD, PAGE, row
from prunus.core.errors import PrunusError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "honest"
    honest(folder)
    return folder


@pytest.mark.parametrize("loader", CASES)
def test_every_crafted_file_is_refused_in_one_line(good, tmp_path, loader):
    copy(good, tmp_path / "control")
    assert outcome_of(LOADERS[loader], tmp_path / "control").what == "accepted", "what is honest must load"
    folders = []
    for number, prepare in enumerate(CASES[loader].values()):
        folders.append(tmp_path / str(number))
        copy(good, folders[-1])
        prepare(folders[-1])
    outcomes = outcomes_of([(LOADERS[loader], folder) for folder in folders])
    ends = Counter(outcome.what for outcome in outcomes)
    wrong = [
        f"{name}: {outcome.what}: {outcome.text}"
        for name, folder, outcome in zip(CASES[loader], folders, outcomes, strict=True)
        if outcome.what != "refused" or (folder / "ran").exists()
    ]
    assert not wrong, "\n".join(wrong)
    assert row(loader, ends) in PAGE.read_text(encoding="utf-8"), "run tests/hostile_table.py"


def _spin(folder):
    while True:
        pass


def _import_canary(folder):
    sys.path.insert(0, str(folder))
    sys.modules.pop(MODULE, None)  # another test of this process may have brought it in, rightly
    importlib.import_module(MODULE)


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (lambda folder: os.system("true"), "ran code"),
        (_import_canary, "ran code"),
        (lambda folder: (folder.parent / "outside.txt").write_text("x"), "ran code"),
        (lambda folder: os.kill(os.getpid(), signal.SIGSEGV), "crash"),
        (lambda folder: os._exit(0), "crash"),
        (_spin, "hang"),
        (lambda folder: bytearray(600 * 2**20), "internal error"),
        (lambda folder: {}["key"], "internal error"),
        (lambda folder: sys.stderr.write("a traceback"), "noise"),
        (lambda folder: None, "accepted"),
    ],
)
def test_the_guard_notices(tmp_path, use, what):
    (tmp_path / "case").mkdir()
    assert outcome_of(use, tmp_path / "case", cpu_seconds=1 if use is _spin else CPU_SECONDS).what == what


def test_a_case_that_ends_the_child_is_told_as_such_and_the_others_have_one_each_for_themselves(tmp_path):
    def grows(folder):
        held.append(bytearray(300 * 2**20))  # twice of it is more than one case may take

    held = []
    uses = [
        _nothing,
        _import_canary,
        lambda folder: os.kill(os.getpid(), signal.SIGSEGV),
        grows,
        grows,
        lambda folder: signal.raise_signal(signal.SIGXCPU),  # as at the limit of processor time
        _nothing,
    ]
    folders = [tmp_path / str(number) for number in range(len(uses))]
    for folder in folders:
        folder.mkdir()
    found = [one.what for one in outcomes_of(list(zip(uses, folders, strict=True)))]
    assert found == ["accepted", "ran code", "crash", "accepted", "accepted", "hang", "accepted"]


def _nothing(folder):
    pass


def test_a_message_of_two_lines_is_noticed(tmp_path):
    def use(folder):
        raise PrunusError("one\ntwo")

    (tmp_path / "case").mkdir()
    assert outcome_of(use, tmp_path / "case").what == "more than one line"


def test_there_are_many_and_every_loader_has_its_row():
    assert sum(map(len, CASES.values())) >= 150
    assert HEAD in PAGE.read_text(encoding="utf-8")
