"""Machines on one computer: each with its own address, name, processes and disk, on a switch whose cables can be cut.

A machine is a set of namespaces (network, mounts, host name, processes). ``/tmp`` (and with it the home folder), ``/run``,
``/var/tmp`` and ``/dev/shm`` are its own and empty; ``/mnt`` is a folder that all share, where one is given, or its own as well.
What is installed is the computer's.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

NET = "10.0.0"
OWN = ("/tmp", "/run", "/var/tmp", "/dev/shm")
TOOLS = ("unshare", "nsenter", "ip", "mount")
# Whoever is the first process of a machine has to take the leave of those whose parents are gone.
INIT = "import signal, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True)\nwhile True: time.sleep(1000)"


def missing():
    """Return why no machines can be made here; None where they can."""
    lacks = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacks:
        return f"needs {', '.join(lacks)}"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "ip", "link", "add", "x", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()}"


def _namespace(*kinds):
    """Return a process that holds new namespaces open, and the id of the first process in them."""
    holder = subprocess.Popen(
        ["unshare", *kinds, "--fork", "--kill-child", sys.executable, "-c", INIT],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    holder.stdout.readline()
    (first,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    return holder, int(first)


class Machine:
    """One of them; ``address`` is where others reach it."""

    def __init__(self, name, address, switch, number, hosts, shared):
        self.name, self.address, self._switch, self._port = name, address, switch, f"port{number}"
        self._holder, self.pid = _namespace("--net", "--mount", "--uts", "--ipc", "--pid", "--mount-proc")
        self._started = []
        steps = [f"hostname {name}", f"mount --bind {hosts} /etc/hosts"]
        steps.append(f"mount --bind {shared} /mnt" if shared is not None else "mount -t tmpfs none /mnt")
        steps += [f"mount -t tmpfs none {folder}" for folder in OWN]
        self.check("sh", "-ec", "\n".join(steps))
        _inside(switch, "ip", "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        _inside(switch, "ip", "link", "set", self._port, "master", "switch", "up")
        up = ["ip link set lo up", f"ip address add {address}/24 dev eth0", "ip link set eth0 up"]
        self.check("sh", "-ec", "\n".join(up))

    def command(self, *words, folder="/tmp", **variables):
        """Return the command that runs another one on this machine."""
        given = [f"{name}={value}" for name, value in variables.items()]
        inside = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-i", "-p", "--wd=/"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', folder]
        return [*inside, *there, "env", "HOME=/tmp", *given, *map(str, words)]

    def start(self, *words, log=None, **variables):
        """Start a command; it ends with the machine at the latest. ``log``: a file of this computer for all that it says."""
        told = subprocess.PIPE if log is None else log.open("w")
        process = subprocess.Popen(
            self.command(*words, **variables),
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.PIPE if log is None else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *words, timeout=300, **variables):
        """Run a command to its end, and return what came of it."""
        return subprocess.run(
            self.command(*words, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def check(self, *words, timeout=300, **variables):
        """Run a command that mustn't fail, and return what it says."""
        done = self.run(*words, timeout=timeout, **variables)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {words} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def pull(self):
        """Pull the cable: nothing comes and nothing goes, and no connection is told."""
        _inside(self._switch, "ip", "link", "set", self._port, "down")

    def plug(self):
        """Put the cable back."""
        _inside(self._switch, "ip", "link", "set", self._port, "up")

    def kill(self):
        """Switch it off: all that runs there is gone, and so is its disk."""
        self._holder.kill()
        self._holder.wait()
        for process in self._started:
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self._holder.stdout.close()


def _inside(pid, *words):
    subprocess.run(["nsenter", "-t", str(pid), "-n", *words], check=True, capture_output=True)


@contextmanager
def machines(*names, folder, shared=None, first=5):
    """Yield machines of these names, at 10.0.0.5 and on; ``folder`` is for what the network needs, ``shared`` lies at /mnt."""
    addresses = {name: f"{NET}.{first + place}" for place, name in enumerate(names)}
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in addresses.items()))
    holder, switch = _namespace("--net")
    made = []
    try:
        _inside(switch, "ip", "link", "add", "switch", "type", "bridge")
        _inside(switch, "ip", "link", "set", "switch", "up")
        for number, (name, address) in enumerate(addresses.items()):
            made.append(Machine(name, address, switch, number, hosts, shared))
        yield made
    finally:
        for machine in made:
            machine.kill()
        holder.kill()
        holder.wait()
        holder.stdout.close()


def until(is_so, seconds, what):
    """Wait until something is so; fail where it isn't after so long."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > end:
            raise TimeoutError(f"not after {seconds} s: {what}")
        time.sleep(0.1)
    return found


def end(process, seconds=20):
    """End a command as Ctrl-C does, and wait for it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    process.wait(seconds)
