"""Does any graph that a stranger could write crash the process, hang it, or read memory that isn't its own?

``python benchmarks/fuzz_graph.py --seconds 3600 --first-seed 0`` writes random graphs over the list of operations, one for each
seed, reads, follows and runs them in children with limits, and prints a table and the seeds of what went wrong. Every tensor's
memory ends at a page that can't be touched: the model's own by ``mmap``, all that the operations make by ``guard_memory.c``, which
takes the place of torch's allocator where there is a C compiler (``cc``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
_BAD = ("crashed", "hung", "ended", "another", "raised", "out of memory")


def guarded_again() -> bool:
    """Start this program anew with the guarding allocator; tell whether it is there already."""
    if "guard_memory" in os.environ.get("LD_PRELOAD", ""):
        return True
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    library = Path(tempfile.mkdtemp()) / "guard_memory.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "guard_memory.c")], check=True)
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"LD_PRELOAD": str(library)})
    return True


def main() -> None:
    """Fuzz for a while."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the counts and the bad seeds go")
    options = parser.parse_args()
    guards = guarded_again()
    sys.path.insert(0, str(HERE.parent / "tests"))
    import torch

    from graph_fuzz import outcomes

    counts: Counter[str] = Counter()
    met: Counter[str] = Counter()
    bad: list[tuple[int, str]] = []
    start, seed = time.monotonic(), options.first_seed
    for first in itertools.count(options.first_seed, 1000):
        if time.monotonic() - start > options.seconds:
            break
        for seed, said, called in outcomes(list(range(first, first + 1000))):
            counts[said] += 1
            if said.startswith(_BAD):
                bad.append((seed, said))
                print(f"seed {seed}: {said}: {' '.join(called)}", flush=True)
            elif said == "ran" or said.startswith("failed"):
                met.update(called)
        print(f"{sum(counts.values())} graphs, {len(bad)} bad", file=sys.stderr, flush=True)
    print(
        f"torch {torch.__version__}, allocator {'guarded' if guards else 'as it is'}, seeds {options.first_seed} to {seed}"
    )
    print(f"{sum(counts.values())} graphs in {time.monotonic() - start:.0f} s; {len(met)} operations ran")
    for said, n in counts.most_common():
        print(f"| {said} | {n} |")
    print(f"{len(bad)} bad: {bad}")
    if options.json:
        options.json.write_text(
            json.dumps({"counts": counts, "bad": bad, "first_seed": options.first_seed, "last_seed": seed}, indent=1)
        )


if __name__ == "__main__":
    main()
