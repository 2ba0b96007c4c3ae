"""A disk that is full or read-only costs a sentence, and nothing that is finished."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.killing import contents
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.errors import ApeError
from pocket_training.curriculum import Lesson
from pocket_training.train import train

LESSONS = (Lesson("pairs", 1, gap=2, steps=3, tokens=200),)
SMALL = {"temperatures": "0.8", "scales": "0.9", "num_tokens": 2, "resamples": 99}
Work = Callable[[dict[str, Any], Path], Any]
WORK: dict[str, Work] = {
    "calibrate": lambda given, folder: calibrate(
        CalibrationOptions.read({**given, **SMALL, "output_path": str(folder)})
    ),
    "compare": lambda given, folder: compare(
        ComparisonOptions.read(
            {**given, "strategies": "sequential,ape", "kl_tokens": 2, "resamples": 99, "output_path": str(folder)}
        )
    ),
    "pocket training": lambda _, folder: train(folder, curriculum=LESSONS, checkpoint_every=1),
}


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocket_training.card.score_by_passages", lambda *_, **__: {"pocket_onehop": {10: 1.0}})
    monkeypatch.setattr("pocket_training.card.score_rows", lambda *_: 1.0)
    monkeypatch.setattr("pocket_training.trainer.time.perf_counter", lambda: 0.0)


@pytest.mark.parametrize("name", WORK)
def test_a_full_disk_is_told_and_nothing_finished_is_lost(
    name: str, given: dict[str, Any], disk: Path, tmp_path: Path
) -> None:
    work, folder, filler = WORK[name], disk / "out", disk / "filler"
    folder.mkdir()
    files: dict[str, bytes] = {}
    stops = 0
    # From no room at all on, a little more each time: the disk is full at another place of the work.
    for room in range(0, 4 * 2**20, 20 * 1024 if name != "pocket training" else 200 * 1024):
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(bytes(max(0, free - room)))
        try:
            work(given, folder)
        except ApeError as error:
            assert re.search("No space left on device|is the disk full", str(error))  # noqa: PT017
            stops += 1
        else:
            break
        finally:
            filler.unlink()
        assert not list(folder.rglob("*.tmp"))
        kept = {name: content for name, content in contents(folder).items() if "training_state" not in name}
        # What was whole is still there, as it was.
        assert {name: content[: len(files[name])] for name, content in kept.items() if name in files} == files
        files = kept
    assert stops > 1
    work(given, tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", WORK)
def test_a_read_only_folder_is_told_before_any_work(name: str, given: dict[str, Any], disk: Path) -> None:
    folder = disk / "out"
    folder.mkdir()
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(ApeError, match=r"The folder \S+ cannot be written to: Read-only file system\. Choose another"):
        WORK[name](given, folder)
    with pytest.raises(ApeError, match=r"The folder \S+ cannot be made: .*Read-only file system"):
        WORK[name](given, folder / "new")


def test_a_file_where_a_folder_should_be_is_told(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ApeError, match=r"The folder \S+cache cannot be made"):
        WORK["calibrate"](given, tmp_path)
