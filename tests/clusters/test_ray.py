"""The documented Ray job, run by a Ray of this machine: it finishes, fails, and goes on when it is submitted again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import child_processes
from lm_eval_ape.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("ray"), reason="needs ray[default]")]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "clusters.md"
MODEL = "pretrained=pocket,chunking=passages,max_chunks=2"
TASK = "ape_pocket_twohop_test"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray that listens on loopback alone; its temporary folder needs a short path."""
    head, dashboard = free_ports(2)
    places = ["--head", "--node-ip-address=127.0.0.1", f"--port={head}", "--include-dashboard=true"]
    places += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--disable-usage-stats", "--num-cpus=2"]
    command = ["ray", "start", "--block", *places, "--object-store-memory=100000000"]
    log = tmp_path_factory.mktemp("ray") / "log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture
def job(address: str, tmp_path: Path) -> list[str]:
    """The page's command, for two processes on this machine's CPUs and the shipped model."""
    (text,) = re.findall(r"```bash\n(ray job submit .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for old, new in {
        "\\\n": " ",
        "http://HEAD:8265": address,
        "--entrypoint-num-gpus 8": "--entrypoint-num-gpus 0",
        "--entrypoint-num-cpus 32": "--entrypoint-num-cpus 2",
        "--nproc-per-node 8": "--nproc-per-node 2",
        "pretrained=/shared/MODEL": MODEL,
        "--tasks TASK": f"--tasks {TASK} --limit 24 --strategies sequential,sink --kl_tokens 8",
        "/shared": str(tmp_path),
        "torchrun": f"env ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "
        f"{Path(sys.executable).parent / 'torchrun'}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return shlex.split(text)


def scores(folder: Path) -> Any:
    """What a board says of tasks."""
    board = json.loads((folder / "board.json").read_text(encoding="utf-8"))
    return [(row["label"], row["tasks"]) for row in board["rows"]]


def submit(job: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit, and wait for the end; a dashboard that has not started yet is asked again."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(job, capture_output=True, text=True, check=False, timeout=300)
        if "Failed to connect" not in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(1)


def test_a_job_that_failed_goes_on_when_it_is_submitted_again(job: list[str], tmp_path: Path) -> None:
    killed = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while True:
            if child_processes.kill_rank(1, str(tmp_path / "board"), when=lambda: any(tmp_path.rglob("run.json"))):
                break
            if killed.poll() is not None:
                # The dashboard had not started yet.
                time.sleep(1)
                killed = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            time.sleep(0.05)
        out, _ = killed.communicate(timeout=120)
    finally:
        killed.kill()
    assert killed.returncode != 0, out
    assert not (tmp_path / "board" / "board.json").exists()
    done = submit(job)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = ["compare", "--model_args", MODEL, "--tasks", TASK, "--limit", "24", "--strategies", "sequential,sink"]
    assert main([*alone, "--kl_tokens", "8", "--output_path", str(tmp_path / "alone")]) == 0
    assert scores(tmp_path / "board") == scores(tmp_path / "alone")
