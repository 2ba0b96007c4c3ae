"""Attention entropy beside the KL: the same numbers as materialised attention, reported, and chosen by on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_eval_ape.analysis.attention import look
from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.estimates import Rank
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.calibration.entropy import Entropies, EntropyMeter, choose_by_entropy
from lm_eval_ape.calibration.grid.choice import Table
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.grid.tuning import rank
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.calibration.tables import rank_sentence
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve

MakeOptions = Callable[..., dict[str, Any]]
POINTS = (NEUTRAL, Point(0.6, 1.2), DEFAULT)


@pytest.fixture(scope="module")
def sample() -> Sample:
    ids = torch.randint(5, 90, (26,), generator=torch.Generator().manual_seed(3)).tolist()
    prompt = Prompt(tuple(ids[:3]), (tuple(ids[3:12]), tuple(ids[12:21])), tuple(ids[21:]))
    return Sample("task", 0, 0, prompt, "")


def test_the_teachers_entropy_is_that_of_the_stock_models_attention(checkpoint: str, sample: Sample) -> None:
    lm = ApeHFLM(checkpoint, dtype="float64", device="cpu")
    stock = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        attentions = stock(torch.tensor([sample.prompt.ids]), output_attentions=True).attentions
    rows = torch.stack([attention[0, :, -5:].double() for attention in attentions])
    expected = float(-torch.special.xlogy(rows, rows).sum(-1).mean())
    found = EntropyMeter(lm, None, None).measure([sample], POINTS)
    assert found.teacher == pytest.approx([expected], abs=1e-6)


def test_points_in_one_batch_have_the_entropies_of_each_alone(checkpoint: str, sample: Sample) -> None:
    lm = ApeHFLM(checkpoint, dtype="float64", device="cpu")
    alone = [
        np.mean(
            look(lm, sample.prompt, resolve({"attn_temperature": point.temperature, "attn_scale": point.scale})).entropy
        )
        for point in POINTS
    ]
    for max_rows in (None, 1):
        found = EntropyMeter(lm, max_rows, None).measure([sample], POINTS)
        assert found.points[0] == pytest.approx(alone, abs=1e-9)
    assert len({round(entropy, 6) for entropy in alone}) == len(POINTS)


def test_what_was_measured_is_not_measured_again(
    checkpoint: str, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = ApeHFLM(checkpoint, dtype="float64", device="cpu")
    first = EntropyMeter(lm, None, tmp_path).measure([sample], POINTS)
    monkeypatch.setattr(EntropyMeter, "_read", lambda *_: pytest.fail("measured again"))
    again = EntropyMeter(lm, None, tmp_path).measure([sample], POINTS[::-1])
    assert np.array_equal(again.points[:, ::-1], first.points)
    assert np.array_equal(again.teacher, first.teacher)


def test_the_choice_is_the_grids_point_nearest_to_the_teacher() -> None:
    grid = Grid((0.8, 1.0), (1.0,))
    points = (Point(0.8, 1.0), NEUTRAL, DEFAULT)
    table = Table(grid, points, np.array([[3.0, 1.0, 0.5], [1.0, 1.0, 0.5]]))
    # The default is nearest, but beside the grid; means of the distances, not distances of the means, decide.
    entropies = Entropies(np.array([2.0, 2.0]), np.array([[2.1, 1.0, 2.0], [2.1, 3.0, 2.0]]))
    chosen = choose_by_entropy(table, entropies)
    assert chosen.point == Point(0.8, 1.0)
    assert chosen.mean_kl == 2.0


def test_a_calibration_reports_entropies_and_chooses_by_them_only_on_request(
    options: MakeOptions, tmp_path: Path
) -> None:
    given = options(output_path=str(tmp_path), entropy=True)
    by_kl = calibrate(Options.read(given)).as_json()
    by_entropy = calibrate(Options.read({**given, "choose_by": "entropy"})).as_json()
    plain = calibrate(Options.read({**given, "entropy": False})).as_json()
    assert "entropy" not in plain
    assert by_kl["choice"] == plain["choice"]
    part = by_entropy["entropy"]
    assert by_kl["entropy"] == {**part, "chosen_by": False}
    assert part["chosen_by"]
    points = [tuple(point) for point in by_entropy["grid"]["points"]]
    asked = [index for index, own in enumerate(by_entropy["grid"]["choosable"]) if own]
    best = points[min(asked, key=lambda index: part["mean_distance"][index])]
    for choice in (part["choice"], by_entropy["choice"]):
        assert (choice["attn_temperature"], choice["attn_scale"]) == best
        assert choice["mean_kl"] == by_entropy["grid"]["mean_kl"][points.index(best)]
    assert by_entropy["stability"]["frequencies"] != by_kl["stability"]["frequencies"]
    # The choice by entropy was written last but one; what is there now is the plain one, whole and valid.
    assert calibration_file.read(tmp_path).as_json() == json.loads(json.dumps(plain))


def test_a_gradient_without_a_grid_has_no_points_to_measure(options: MakeOptions) -> None:
    given = options(temperatures=None, scales=None, method="gradient", choose_by="entropy")
    with pytest.raises(ApeError, match="--method gradient has no grid"):
        Options.read(given)


def test_two_points_have_a_correlation_without_a_p_value() -> None:
    values = np.array([[1.0, 2.0], [1.0, 3.0]])
    found = rank(values, values, resample(2, 50, 1))
    assert found.rho == pytest.approx(1.0)
    assert found.p_value is None
    assert rank_sentence(Rank(**found._asdict())) == "1.000, 95% [1.000, 1.000], no p for 2 points"
