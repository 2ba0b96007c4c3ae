"""Starts processes as a cluster's launcher would, on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def run(launcher: Sequence[str], *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script or `-m MODULE` in the processes that a launcher starts; `check` that all of them succeed."""
    done = subprocess.run(
        [*launcher, *command], check=False, env=ENVIRONMENT, capture_output=True, text=True, timeout=180
    )
    assert not check or done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    return done


def torchrun(count: int) -> list[str]:
    """So many processes of torchrun."""
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"]


def accelerate(count: int) -> list[str]:
    """So many processes of `accelerate launch`; with `--cpu` it would start a single one."""
    # A port of 0, which means a free one to newer releases, leaves older ones waiting for ever.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count), *plain]
