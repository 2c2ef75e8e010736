"""A file that lies in a folder of registered things is registered, without being listed anywhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prunus

SOURCE = Path(prunus.__file__).parent
NEW = {
    "score/criteria": """
from prunus.score.criteria.criterion import criterion
@criterion("newcomer", needs=("weight",))
def newcomer(weight):
    '''Return something.'''
    return weight
""",
    "graph/rules": """
from prunus.graph.solver.solve import rule
@rule("newcomer")
def newcomer(call):
    '''Say nothing.'''
""",
}
ASK = {
    "score/criteria": "from prunus.score import criteria; assert 'newcomer' in criteria",
    "graph/rules": "import prunus.graph; from prunus.graph.solver.solve import RULES; assert 'newcomer' in RULES",
}


@pytest.mark.parametrize("folder", NEW)
def test_a_new_file_is_registered_by_lying_there(folder, tmp_path):
    copy = tmp_path / "prunus"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / folder / "newcomer.py").write_text(NEW[folder])
    done = subprocess.run(
        [sys.executable, "-c", ASK[folder]],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
