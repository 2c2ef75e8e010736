"""What processes tell of themselves, and a program that has workers."""

import os
import signal
import sys
import time
from pathlib import Path


class Facts:
    """Tells of the process that it is called in."""

    def __call__(self, shard):
        time.sleep(0.05)  # so that no worker takes all
        return {
            "process": os.getpid(),
            "parent": os.getppid(),
            "variable": os.environ.get("PRUNUS_TEST_OF_WORKERS"),
            "safe_path": os.environ.get("PYTHONSAFEPATH"),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "folder": str(Path.cwd()),
            "path": tuple(sys.path),
            "on_interrupt": signal.getsignal(signal.SIGINT),
        }


class Busy:
    """Is at it until it is ended, and says that it is."""

    def __call__(self, shard):
        Path(f"worker-{os.getpid()}").write_text(str(os.getppid()))
        time.sleep(600)


PROGRAM = f"""
import sys, threading, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from process_jobs import Busy
from prunus.scale.dispatch import map_shards

def tell():
    while len(found := sorted(Path().glob("worker-*"))) < 2 or not all(one.read_text() for one in found):
        time.sleep(0.01)
    print(found[0].read_text(), *(one.name.partition("-")[2] for one in found), flush=True)

threading.Thread(target=tell, daemon=True).start()
list(map_shards(Busy(), [1, 2], workers=2))
"""
"""Says its server's and its workers' numbers."""


def is_gone(process):
    """Wait until a process has ended, or is only waited for by whoever takes up orphans."""
    while True:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
