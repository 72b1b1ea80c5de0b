"""A real Slurm on loopback, for as long as a test needs it: two CPU nodes, and one with two pretend GPUs.

Debian's slurmd can run several times on one host. Nothing is asked of the machine but root and the packages slurmctld,
slurmd, slurm-client and munge. Everything lies in one folder but two links in /etc/slurm, which are taken away again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sinfo", "squeue", "sbatch", "srun", "scancel", "scontrol", "munged", "mungekey")
NODES = ("cpu1", "cpu2", "gpu1")
ETC = Path("/etc/slurm")

_CONF = """
ClusterName=ci
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobRequeue=0
SlurmdParameters=config_overrides
SlurmdTimeout=120
MessageTimeout=60
BatchStartTimeout=120
KillWait=3
MinJobAge=3600
GresTypes=gpu
DefMemPerCPU=700
Prolog={folder}/prolog.sh
AccountingStorageType=accounting_storage/none
NodeName=cpu[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]},{ports[2]} CPUs=2 RealMemory=16000
NodeName=gpu1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[3]} CPUs=2 RealMemory=16000 Gres=gpu:fake:2
PartitionName=cpu Nodes=cpu[1-2] Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=gpu1 MaxTime=INFINITE
"""


def why_not() -> str:
    """Say why no Slurm can be started here; nothing if one can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a Slurm on loopback needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurmctld slurmd slurm-client munge"
    conf = ETC / "slurm.conf"
    if conf.is_symlink():  # a test's: one that runs beside this one, or one that was killed
        pid = conf.readlink().parent / "run" / "slurmctld.pid"
        alive = pid.is_file() and _lives(int(pid.read_text()))
        return f"another Slurm for tests is running: {conf.readlink().parent}" if alive else ""
    return f"this machine has a Slurm of its own ({conf}), which is left alone" if conf.exists() else ""


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[None]:
    """Start the cluster; stop it, and all that runs on it, at the end of the block."""
    for name in ("state", "log", "run", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    for gpu in (0, 1):  # Slurm takes nothing but character devices for GPUs
        os.mknod(folder / "run" / f"gpu{gpu}", 0o666 | 0o020000, os.makedev(1, 3))
    (folder / "slurm.conf").write_text(_CONF.format(folder=folder, ports=_free_ports(4)))
    prolog = folder / "prolog.sh"  # notes which GPUs a job was given, which Slurm forgets when the job ends
    prolog.write_text(f'#!/bin/sh\necho "$SLURM_JOB_ID $SLURM_JOB_GPUS" >> {folder}/log/gpus\n')
    prolog.chmod(0o755)
    gres = f"NodeName=gpu1 Name=gpu Type=fake File={folder}/run/gpu[0-1] Flags=nvidia_gpu_env\n"
    (folder / "gres.conf").write_text(gres)
    ETC.mkdir(exist_ok=True)
    try:
        for name in ("slurm.conf", "gres.conf"):  # the jobs' own srun reads no other place
            link = ETC / name
            link.unlink(missing_ok=True)
            link.symlink_to(folder / name)
        _start(folder)
        yield
    finally:
        _stop(folder)
        for name in ("slurm.conf", "gres.conf"):
            link = ETC / name
            if link.is_symlink() and link.readlink() == folder / name:
                link.unlink()


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, all at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def _start(folder: Path) -> None:
    run = folder / "run"
    _call("mungekey", "--create", "--keyfile", run / "munge.key")
    files = {"key": "munge.key", "socket": "munge.sock", "pid": "munged.pid", "seed": "munge.seed"}
    places = [f"--{kind}{'' if kind == 'socket' else '-file'}={run / name}" for kind, name in files.items()]
    _call("munged", "--force", *places, f"--log-file={folder / 'log' / 'munged.log'}")
    _call("slurmctld", "-c")
    wait_until(lambda: "is UP" in _output("scontrol", "ping"), 60, "slurmctld does not answer")
    for node in NODES:
        _call("slurmd", "-N", node)
    wait_until(lambda: len(set(_output("sinfo", "-hNtidle", "-o%N").split())) == len(NODES), 60, "nodes are not idle")


def _stop(folder: Path) -> None:
    """Cancel all jobs and end the daemons by the pids that they wrote."""
    with suppress(subprocess.TimeoutExpired, OSError):
        jobs = _output("squeue", "-h", "-o%i").split()
        if jobs:
            subprocess.run(["scancel", *jobs], check=False, timeout=60, capture_output=True)
            wait_until(lambda: not _output("squeue", "-h", "-o%i").split(), 20, "")
    names = (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged")
    pids = [int(path.read_text()) for name in names if (path := folder / "run" / f"{name}.pid").is_file()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_lives, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        wait_until(lambda: not any(map(_lives, pids)), 10, "")


def end_strays(mark: str) -> list[int]:
    """Kill what a test's jobs left running; it is known by a text in its environment that no other process has.

    Slurm follows a job's processes by their parents here, and one whose parent was killed first escapes it.
    """
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ProcessLookupError):
            if mark.encode() in (place / "environ").read_bytes() and int(place.name) != os.getpid():
                os.kill(int(place.name), signal.SIGKILL)
                found.append(int(place.name))
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until something holds; fail with a message if it does not, where one is given."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            assert not otherwise, f"{otherwise} after {seconds} s"
            return
        time.sleep(0.2)


def _call(*words: object) -> None:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
