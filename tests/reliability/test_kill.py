"""Killed at any write, the same command goes on and ends with the same bytes as a run that nobody disturbed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.killing import contents, killed_before_write
from lm_eval_ape.analysis.options import Options as AnalysisOptions
from lm_eval_ape.analysis.run import analyze
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options as ComparisonOptions
from pocket_training.curriculum import Lesson
from pocket_training.train import train

pytestmark = pytest.mark.slow

Work = Callable[[Path], Any]
LEAST_KILLS, MOST_KILLS = 10, 60


def kill_at_every_write(work: Work, tmp_path: Path, seed: int) -> int:
    """Kill the same work at one write after the other until it is done, and compare with undisturbed work.

    Returns:
        How often it was killed.
    """
    chance = random.Random(seed)
    log, killed, whole = tmp_path / "log", tmp_path / "killed", tmp_path / "whole_"
    assert not killed_before_write(lambda: work(whole), -1, chance, log)
    kills = 0
    # Each process lives for one write more than is there already.
    while killed_before_write(lambda: work(killed), 2, chance, log):
        kills += 1
        assert kills < MOST_KILLS
    expected, found = contents(whole), contents(killed)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    return kills


def test_a_calibration_on_a_grid_with_entropy_and_labels(given: dict[str, Any], tmp_path: Path) -> None:
    small = {"temperatures": "0.8,1.0", "scales": "0.9", "num_tokens": 2, "resamples": 99}
    options = {**given, **small, "with_labels": True, "test_tasks": "toy_test", "entropy": True}
    kills = kill_at_every_write(
        lambda folder: calibrate(CalibrationOptions.read({**options, "output_path": str(folder)})), tmp_path, 1
    )
    assert kills >= LEAST_KILLS


def test_a_calibration_by_gradient(given: dict[str, Any], tmp_path: Path) -> None:
    small = {"method": "gradient", "granularity": "layer", "steps": 2, "num_tokens": 2, "resamples": 99}
    small |= {"penalty": 0.1, "folds": 2}
    kills = kill_at_every_write(
        lambda folder: calibrate(CalibrationOptions.read({**given, **small, "output_path": str(folder)})), tmp_path, 2
    )
    assert kills >= LEAST_KILLS


def test_a_comparison_with_divergences(given: dict[str, Any], tmp_path: Path) -> None:
    small = {"strategies": "sequential,ape", "kl_tokens": 2, "answer_nats": True, "resamples": 99}
    kills = kill_at_every_write(
        lambda folder: compare(ComparisonOptions.read({**given, **small, "output_path": str(folder)})), tmp_path, 3
    )
    assert kills >= LEAST_KILLS


def test_an_analysis(given: dict[str, Any], tmp_path: Path) -> None:
    small = {"strategies": "sequential,sink", "chunks": "2", "resamples": 99}
    kills = kill_at_every_write(
        lambda folder: analyze(AnalysisOptions.read({**given, **small, "output_path": str(folder)})), tmp_path, 4
    )
    assert kills >= LEAST_KILLS


def test_the_training_of_the_pocket_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocket_training.card.score_by_passages", lambda *_, **__: {"pocket_onehop": {10: 1.0}})
    monkeypatch.setattr("pocket_training.card.score_rows", lambda *_: 1.0)
    monkeypatch.setattr("pocket_training.trainer.time.perf_counter", lambda: 0.0)
    lessons = (Lesson("pairs", 1, gap=2, steps=3, tokens=200), Lesson("chains", 2, gap=2, steps=2, tokens=200))
    kills = kill_at_every_write(
        lambda folder: train(folder, seed=1, curriculum=lessons, checkpoint_every=1), tmp_path, 5
    )
    assert kills >= LEAST_KILLS
