"""A Slurm cluster of one node, this machine's, for as long as a test runs; everything listens on loopback alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")
AVAILABLE = all(map(shutil.which, PROGRAMS)) and hasattr(os, "geteuid") and os.geteuid() == 0
"""Whether Slurm and MUNGE are installed; slurmd wants to be root."""
CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={daemon}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# A requeued job begins after that long.
PATIENCE = 240


class Cluster:
    """What is asked of the cluster.

    Args:
        folder: Where its configuration lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def ask(self, *command: str) -> str:
        """Run one of Slurm's programs; what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, script: str, *options: str) -> str:
        """The new job's number."""
        file = self.folder / "job.sh"
        file.write_text(script, encoding="utf-8")
        return self.ask("sbatch", "--parsable", *options, str(file))

    def state(self, job: str) -> str:
        """`PENDING`, `RUNNING`, `COMPLETED`, `FAILED`, ...; of an array the states of all its jobs."""
        shown = self.ask("scontrol", "show", "job", job)
        return " ".join(sorted({word[9:] for word in shown.split() if word.startswith("JobState=")}))

    def wait(self, job: str, *states: str) -> str:
        """Wait for one of these states.

        Returns:
            The state.
        """
        deadline = time.monotonic() + PATIENCE
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, (
                f"job {job} is still {state}: {self.ask('scontrol', 'show', 'job', job)}"
            )
            time.sleep(0.3)
        return state


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start MUNGE and Slurm, and end them."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    with ExitStack() as stack:
        ports = [stack.enter_context(socket.socket()) for _ in range(2)]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        controller, daemon = (port.getsockname()[1] for port in ports)
    conf = CONF.format(folder=folder, controller=controller, daemon=daemon, cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(conf, encoding="utf-8")
    version = "v1" if Path("/sys/fs/cgroup/cpu").is_dir() else "v2\nIgnoreSystemd=yes"
    (folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/{version}\n", encoding="utf-8")
    found = Cluster(folder)
    places = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    with ExitStack() as stack:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *places],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "localhost"],
        ):
            stack.enter_context(_running(command, found))
        deadline = time.monotonic() + PATIENCE
        while "idle" not in found.ask("sinfo", "--noheader", "--format=%t"):
            assert time.monotonic() < deadline, (folder / "slurmd.out").read_text(encoding="utf-8")
            time.sleep(0.3)
        yield found


@contextmanager
def _running(command: Sequence[str], found: Cluster) -> Iterator[None]:
    with (found.folder / f"{command[0]}.out").open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, env=found.environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            # Each needs the one before it to answer.
            time.sleep(1)
            yield
        finally:
            process.terminate()
            process.wait()
