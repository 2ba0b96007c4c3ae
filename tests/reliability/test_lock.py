"""One run at a time in a folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.analysis.options import Options as AnalysisOptions
from lm_eval_ape.analysis.run import analyze
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.errors import ApeError
from lm_eval_ape.runtime.folder_lock import hold
from lm_eval_ape.storage.files import draft_of
from pocket_training.train import train


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """Another process, whose number is given, that holds a folder until it is killed."""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        with hold(folder, ["lm-eval-ape", "compare", "--tasks", "a b"]):
            os.write(tell, b"!")
            signal.pause()
    os.read(ready, 1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)


def test_a_second_run_on_a_folder_says_who_holds_it_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        told = rf"by another run: process {process} on \S+, since 20\S+, `lm-eval-ape compare --tasks 'a b'`\. Wait"
        with pytest.raises(ApeError, match=told), hold(tmp_path):
            pytest.fail("held twice")
    with hold(tmp_path) as folder:
        assert folder == tmp_path


WORK: dict[str, Callable[[dict[str, Any], Path], Any]] = {
    "calibrate": lambda given, folder: calibrate(CalibrationOptions.read({**given, "output_path": str(folder)})),
    "calibrate, cache": lambda given, folder: calibrate(CalibrationOptions.read({**given, "cache_path": str(folder)})),
    "compare": lambda given, folder: compare(ComparisonOptions.read({**given, "output_path": str(folder)})),
    "analyze": lambda given, folder: analyze(AnalysisOptions.read({**given, "output_path": str(folder)})),
    "analyze, board": lambda given, folder: analyze(AnalysisOptions.read({**given, "output_path": str(folder.parent)})),
    "pocket training": lambda given, folder: train(folder),
}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", WORK)
def test_whatever_writes_a_folder_over_time_stops_before_it_does_work(
    name: str, given: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    with held_elsewhere(folder), pytest.raises(ApeError, match="is being written by another run"):
        WORK[name](given, folder)


def test_the_processes_of_a_distributed_run_share_the_lock_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with hold(tmp_path):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(ApeError, match="another run"), hold(tmp_path):
            pytest.fail("held twice")


def test_drafts_of_dead_processes_go_and_those_of_living_ones_and_other_files_stay(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "teacher"
    place.mkdir(parents=True)
    own, foreign = draft_of(place / "a.safetensors"), place / "notes.tmp"
    child = os.fork()
    if not child:
        draft_of(place / "b.safetensors").write_text("half")
        draft_of(tmp_path / "files").mkdir()
        os._exit(0)
    os.waitpid(child, 0)
    other = place / f"c.safetensors.other-host.{child}.tmp"
    old = place / f"d.safetensors.other-host.{child}.tmp"
    for path in (own, foreign, other, old):
        path.write_text("half")
    os.utime(old, (0, 0))
    assert len(list(tmp_path.rglob("*.tmp"))) == 6
    with hold(tmp_path):
        assert set(tmp_path.rglob("*.tmp")) == {own, foreign, other}


def test_a_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ApeError, match="wrong"), hold(tmp_path):
        raise ApeError("wrong")
    with hold(tmp_path):
        pass
