"""Cut the network between two machines of a cluster: is any answer lost, and is any call paid twice?

    sudo python benchmarks/ray_cut.py [--questions 900] [--faults none blip cut apart stopped]

Needs Linux and root. The machines are network namespaces of this one: `a` with the run, the Ray head and a server that
counts calls, and `b`, with its own temporary folders. Two links connect them; calls to the server use the second. After
a third of the calls:

    none     no fault
    blip     both links are cut for 20 s
    cut      both links are cut permanently
    apart    the first link is cut permanently: `b` reaches only the server
    stopped  the worker on `b` is stopped (SIGSTOP), as in a suspended machine; Ray notices nothing

Printed for each: the seconds of the run, repeated calls, lost answers, and whether the attempts equal those of an
undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cluster.ray_runs import Counting, config, cut, start
from servers.threaded import in_thread

FAULTS = ("none", "blip", "cut", "apart", "stopped")
BLIP_S = 20.0
LONGEST_S = 300
PORT = 6379
HEAD, SECOND = "10.77.1", "10.77.2"
"""The two links, as networks: `a` is .1 in both, `b` is .2."""
ON_B = f"""
mount --make-rprivate /
mkdir -p /tmp/ray
for folder in /dev/shm /tmp/ray; do mount -t tmpfs none $folder; done
export TMPDIR=/dev/shm
exec {Path(sys.executable).with_name("ray")} start --block --num-cpus=1 --address={HEAD}.1:{PORT} \
    --node-ip-address={HEAD}.2
"""


class Server(Counting):
    """Listens on the second link."""

    host = f"{SECOND}.1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def cut_lines(*numbers: int, up: bool = False) -> None:
    for number in numbers:
        ip("-n", "fractionate-a", "link", "set", f"fra{number}", "up" if up else "down")


@contextmanager
def two_networks() -> Iterator[None]:
    """Two namespaces with two links between them, while the block runs."""
    names = ("fractionate-a", "fractionate-b")
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for number, network in enumerate((HEAD, SECOND)):
            ends = [f"fr{name[-1]}{number}" for name in names]
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for place, (name, end) in enumerate(zip(names, ends, strict=True), 1):
                ip("link", "set", end, "netns", name)
                ip("-n", name, "addr", "add", f"{network}.{place}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
        yield
    finally:
        for name in names:
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in map(int, found.stdout.split()):
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=False)


def begin_ray() -> None:
    """Start the head on `a` and a machine on `b`."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

    def begin(name: str, *command: str) -> None:
        inside = ["ip", "netns", "exec", name, *command]
        quiet = subprocess.DEVNULL
        subprocess.Popen(inside, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)

    head = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1"]
    head += [f"--port={PORT}", f"--node-ip-address={HEAD}.1", "--include-dashboard=false"]
    begin("fractionate-a", *head)
    time.sleep(8.0)
    begin("fractionate-b", "unshare", "-m", "bash", "-c", ON_B)
    status = ["ip", "netns", "exec", "fractionate-a", head[0], "status", f"--address={HEAD}.1:{PORT}"]
    for _ in range(30):
        said = subprocess.run(status, env=environment, capture_output=True, text=True, check=False).stdout
        if said.count("1 node_") == 2:
            return
        time.sleep(1.0)
    raise SystemExit("the second machine did not join the first")


def disturb(fault: str) -> None:
    """Cause the fault."""
    if fault == "blip":
        cut_lines(0, 1)
        time.sleep(BLIP_S)
        cut_lines(0, 1, up=True)
    elif fault in ("cut", "apart"):
        cut_lines(*((0, 1) if fault == "cut" else (0,)))
    elif fault == "stopped":
        found = subprocess.run(["ip", "netns", "pids", "fractionate-b"], capture_output=True, text=True, check=True)
        workers = [
            pid for pid in found.stdout.split() if "ray::run_shard"[:15] in (Path("/proc") / pid / "comm").read_text()
        ]
        assert workers, "no worker is on b"
        for pid in workers:
            os.kill(int(pid), signal.SIGSTOP)


def try_fault(fault: str, questions: int) -> bool:
    """Run once without a cluster and once with the fault (this process is on `a`). Returns whether all held."""
    os.environ["NO_PROXY"] = "*"
    with tempfile.TemporaryDirectory() as folder, in_thread(Server(delay_s=0.2)) as server:
        base = Path(folder)
        path = config(base, server.base_url, questions)
        run = start(path, base / "plain", base / "plain.sqlite")
        said, _ = run.communicate(timeout=LONGEST_S)
        assert run.returncode == 0, said
        calls = len(server.asked)
        server.asked.clear()
        begun = time.monotonic()
        run = start(path, base / "ray", base / "ray.sqlite", f"ray://{HEAD}.1:{PORT}")
        while sum(server.asked.values()) < calls // 3 and run.poll() is None:
            time.sleep(0.01)
        disturb(fault)
        said, _ = run.communicate(timeout=LONGEST_S)
        assert run.returncode == 0, said
        repeated, lost = sum(count - 1 for count in server.asked.values()), calls - len(server.asked)
        same = cut(base / "ray") == cut(base / "plain")
        took = time.monotonic() - begun
    print(f"{fault:9}{calls:7,}{took:8.0f} s{repeated:10}{lost:6}  {'yes' if same else 'NO'}", flush=True)
    return same and not lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=900)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return int(not try_fault(arguments.faults[0], arguments.questions))
    if sys.platform != "linux" or os.geteuid():
        sys.exit("namespaces need Linux and root")
    print("fault      calls    took  repeated  lost  same attempts", flush=True)
    failed = 0
    for fault in arguments.faults:
        with two_networks():
            begin_ray()
            again = [sys.executable, __file__, "--inside", "--faults", fault, f"--questions={arguments.questions}"]
            failed += subprocess.run(["ip", "netns", "exec", "fractionate-a", *again], check=False).returncode
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
