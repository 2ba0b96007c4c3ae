"""Starts processes as a cluster's launcher would, on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def torchrun(count: int, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script or `-m MODULE` in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"]
    return subprocess.run(
        [*launcher, *command], check=check, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def start_alone(count: int, *command: str) -> list[subprocess.Popen[str]]:
    """Start the same processes without anybody who ends the others when one fails, as on separate machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
