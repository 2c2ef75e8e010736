import platform
import subprocess
import sys

import pytest

from prunus.core.code import freed_memory
from prunus.core.code.freed_memory import give_back_freed

CHILD = """
import numpy as np
from pathlib import Path
from prunus.core.code.freed_memory import give_back_freed

def held():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

before = held()
pieces = [np.ones(8_000) for _ in range(1000)]  # 64 kB each, from the heap; those that stay pin what lies between them
del pieces[::2]
between, after = held(), (give_back_freed(), held())[1]
print(between - before, after - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_what_was_freed_between_pieces_in_use_goes_back_to_the_system():
    ended = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    between, after = map(int, ended.stdout.split())
    assert between > 60e6
    assert after < 40e6


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _: object())
    freed_memory._trim.cache_clear()
    try:
        assert freed_memory._trim() is None
        give_back_freed()
    finally:
        freed_memory._trim.cache_clear()
