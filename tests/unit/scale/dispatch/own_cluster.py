"""Does work on a Ray cluster that is started for it, and writes down who listened where meanwhile."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from dispatch_jobs import Job

from prunus.scale.dispatch import map_shards


def below(pid):
    """Return the ids of all processes below one, and its own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(text.partition(" ")[0]))
    found, new = {pid}, [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found |= set(new)
    return found


def listening(tree):
    """Return the addresses, as the kernel writes them, on which processes listen, and to which they are connected."""
    inodes, found = set(), set()
    for pid in tree:
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state, *rest = line.split()
            if rest[5] in inodes:
                found.add((local if state == "0A" else remote).partition(":")[0])
    return sorted(found)


if __name__ == "__main__":
    marks, report = sys.argv[1:]
    shards = [("", 0), ("die once", 1), ("", 2)]
    found = {}
    for number, answer in map_shards(Job(marks), shards, backend="ray", workers=2):
        found[number] = answer[0]
        addresses = listening(below(os.getpid()))
    ray = sys.modules["ray"]
    said = {"found": found, "addresses": addresses, "left": ray.is_initialized(), "niceness": os.nice(0)}
    Path(report).write_text(json.dumps(said))
