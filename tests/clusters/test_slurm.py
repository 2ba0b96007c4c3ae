"""The documented Slurm scripts, run by a Slurm of one node: jobs finish, fail, are requeued, and go on."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import child_processes, slurm
from lm_eval_ape.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not slurm.AVAILABLE, reason="needs slurm-wlm, munge, and to be root"),
]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "clusters.md"
CALIBRATION = ("--model_args", "pretrained=pocket,chunking=passages,max_chunks=2", "--limit", "16", "--max_rows", "4")
TASK = "ape_pocket_twohop_calibration"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """A script of the page, for two processes on this machine's CPUs and the shipped model."""
    blocks = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

    def found(marker: str) -> str:
        (text,) = [block for block in blocks if marker in block]
        for old, new in {
            "--nodes=2": "--nodes=1",
            "--gpus-per-node=8": "--no-kill",
            "--gpus=1": "--no-kill",
            "--cpus-per-task=32": f"--cpus-per-task={os.cpu_count()}",
            "--nproc-per-node 8": "--nproc-per-node 2",
            "--time=04:00:00": "--time=10",
            "OMP_NUM_THREADS=4": f"OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true PATH={Path(sys.executable).parent}:$PATH",
            "$head:29500": "localhost:0",
            "pretrained=/shared/MODEL": CALIBRATION[1],
            '--metadata \'{"longbench_dir": "/shared/longbench"}\'': " ".join(
                CALIBRATION[2:] if marker == "calibrate" else CALIBRATION[2:4]
            ),
            "--tasks TASK ": f"--tasks {TASK} ",
            "/shared": str(tmp_path),
        }.items():
            text = text.replace(old, new)
        return text

    return found


def content(folder: Path) -> dict[str, Any]:
    """What a calibration found, but for when, how fast and by which command."""
    found = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name not in ("created", "command", "seconds")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The calibration of a single process without Slurm."""
    folder = tmp_path_factory.mktemp("alone")
    assert main(["calibrate", *CALIBRATION, "--tasks", TASK, "--output_path", str(folder)]) == 0
    return content(folder)


def kill_a_process(folder: Path) -> None:
    """Once samples have been measured, kill one of the processes that measure."""

    def measured() -> bool:
        return any(path.stat().st_size for path in folder.rglob("*.jsonl"))

    deadline = time.monotonic() + slurm.PATIENCE
    while not child_processes.kill_rank(1, str(folder), when=measured):
        assert time.monotonic() < deadline, "nothing was measured"
        time.sleep(0.05)


def test_a_job_finds_what_a_single_process_finds(
    cluster: slurm.Cluster, script: Callable[[str], str], alone: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = cluster.submit(script("calibrate"), f"--output={log}")
    assert cluster.wait(job, "COMPLETED", "FAILED") == "COMPLETED", log.read_text(encoding="utf-8")
    assert content(tmp_path / "out") == alone


def test_a_job_that_lost_a_process_fails_and_goes_on_when_it_is_requeued(
    cluster: slurm.Cluster, script: Callable[[str], str], alone: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = cluster.submit(script("calibrate"), f"--output={log}")
    kill_a_process(tmp_path / "out")
    assert cluster.wait(job, "COMPLETED", "FAILED") == "FAILED", log.read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "calibration.json").exists()
    measured = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    cluster.ask("scontrol", "requeue", job)
    cluster.wait(job, "PENDING")
    # Slurm lets a requeued job wait for minutes unless it is told when to begin. Not within the second in which the job
    # ended: its node takes no credential as old as the one that ended with it ("Job credential revoked").
    cluster.ask("scontrol", "update", f"jobid={job}", "StartTime=now+5")
    assert cluster.wait(job, "COMPLETED", "FAILED") == "COMPLETED", log.read_text(encoding="utf-8")
    assert content(tmp_path / "out") == alone
    assert all(path.read_bytes().startswith(before) for path, before in measured.items())


def test_an_array_of_jobs_is_joined_on_one_board(
    cluster: slurm.Cluster, script: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = cluster.submit(script("--array"), f"--output={tmp_path}/log-%a")
    state = cluster.wait(job, "COMPLETED", "COMPLETED FAILED", "FAILED")
    assert state == "COMPLETED", [path.read_text(encoding="utf-8") for path in tmp_path.glob("log-*")]
    (joined,) = re.findall(r"^lm-eval-ape (compare --from .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    folders = sorted(str(path) for path in tmp_path.glob("board-*"))
    words = joined.replace("/shared/board-*", " ".join(folders)).replace("/shared", str(tmp_path)).split()
    assert main(words) == 0
    board = json.loads((tmp_path / "board" / "board.json").read_text(encoding="utf-8"))
    assert sorted(row["label"] for row in board["rows"]) == ["ape", "sequential", "sink"]
    (task,) = board["tasks"]
    assert [row["tasks"][task]["difference"] is None for row in board["rows"] if row["label"] != "sequential"] == [
        False
    ] * 2
