"""A fit that is no better on samples that it did not see is refused, and that is told; one that is better is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.taught import UNLIKE, scattered, teach
from helpers.undrawn import page
from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.points import DEFAULT
from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.calibration import figures
from lm_eval_ape.calibration.gradient.cross_fit import choose_level
from lm_eval_ape.calibration.gradient.descent import Level, judge
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.gradient.fit import Fit
from lm_eval_ape.calibration.gradient.fit_state import StateFile
from lm_eval_ape.calibration.gradient.folds import part
from lm_eval_ape.calibration.gradient.kept_contexts import Contexts
from lm_eval_ape.calibration.gradient.plan import Plan
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.tables import gradient_sentences
from lm_eval_ape.cli import calibrate as command
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt

# Head 2 of layer 1 reads contexts sharply in the model that teaches; nowhere else does it differ from the start.
SHARP = Factors(((0.9,) * 4, (0.9, 0.9, 0.3, 0.9), (0.9,) * 4), ((0.9,) * 4, (0.9, 0.9, 2.0, 0.9), (0.9,) * 4))
PLAN = Plan("head", False, DEFAULT, 12, 0.2, 100, (0.25, 4.0), (0.0,))
SAMPLES = 12
FOLDS = part(SAMPLES, folds=4, seed=0)
FEW = {"method": "gradient", "temperatures": None, "scales": None, "num_tokens": 2, "penalty": 0, "limit": 6}


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(5, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def sample(seed: int) -> Sample:
    prompt = Prompt(tokens(3, seed), (tokens(7, seed + 1), tokens(5, seed + 2)), tokens(4, seed + 3))
    return Sample("task", seed, 0, prompt, f"{seed:08x}")


def levels(lm: ApeHFLM) -> list[Level]:
    """The fits to the teacher."""
    meter = Meter(lm, Objective(4, "teacher", "continue"), max_rows=None, cache=None)
    samples = [sample(10 * number) for number in range(SAMPLES)]
    fit = Fit(
        lm,
        PLAN,
        FOLDS,
        samples=samples,
        teachers=dict(enumerate(map(meter.teacher, samples))),
        differentiator=Differentiator(lm),
        contexts=Contexts(lm, None),
        file=StateFile(None, ""),
    )
    return judge(PLAN, fit.run(), FOLDS, resample(SAMPLES, 999, 0))


@pytest.mark.slow
def test_a_head_that_is_truly_off_is_found_and_kept(
    load: Callable[..., ApeHFLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch, lambda _: SHARP)
    found = levels(load())
    assert choose_level([level.held for level in found]) == 2
    head = found[-1]
    assert isinstance(head.candidate, Factors)
    logarithms = np.log(np.array([head.candidate.temperature, head.candidate.scale]) / 0.9)
    away = np.abs(logarithms).sum(0)
    assert np.unravel_index(away.argmax(), away.shape) == (1, 2)
    assert head.held.kl.mean() < 0.9 * head.held.start.mean()


@pytest.mark.slow
def test_what_samples_do_not_share_is_learned_but_not_returned(
    load: Callable[..., ApeHFLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch, scattered)
    found = levels(load())
    head = found[-1]
    assert head.training[-1] < 0.95 * head.training[0]
    assert head.held_out[-1] > head.training[-1] + 0.03 * head.training[0]
    assert not head.held.better
    assert choose_level([level.held for level in found]) is None


def test_a_refused_fit_is_told_and_the_start_is_the_result(
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teach(monkeypatch, scattered)
    output = str(tmp_path / "out")
    assert command.main(flags(**FEW, steps=3, output_path=output)) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "attn_temperature=0.9,attn_scale=0.9"
    told = "No fit is better than its start on samples that it did not see: the result is the start, T=0.9, S=0.9."
    assert told in printed.err
    assert "Moved most" not in printed.err
    content = calibration_file.read(output)
    gradient = content.gradient
    assert gradient
    assert gradient.at_start
    assert calibration_file.found(content) == (*DEFAULT, None)
    assert [level.granularity for level in gradient.levels] == ["model", "layer", "head"]
    for level in gradient.levels:
        assert len(level.kl) == 6
        assert level.mean_kl == pytest.approx(np.mean(level.kl))
        assert level.less_kl.mean == pytest.approx(level.start_kl - level.mean_kl)
        assert not level.better
        (line,) = (line for line in gradient_sentences(gradient) if f"each {level.granularity}," in line or
                   (level.granularity == "model" and "for the model," in line))  # fmt: skip
        assert line.endswith("Refused: not better than the start beyond noise.")
        assert f"{level.start_kl:.4g} at the start and {level.mean_kl:.4g} after" in line
        assert line in printed.err
    assert "factors" not in figures.all_figures(content)
    assert told in page(calibration=content.as_json())
    config = (tmp_path / "out" / "run_config.yaml").read_text(encoding="utf-8")
    assert "attn_temperature: 0.9" in config


def test_a_coarser_fit_that_is_better_is_returned_in_place_of_the_finest(
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teach(monkeypatch, lambda _: Factors.of(0.6, 1.2))
    output = str(tmp_path / "out")
    monkeypatch.setattr(
        "lm_eval_ape.calibration.gradient.descent.choose_level",
        lambda held: 0 if held[0].better else None,
    )
    assert command.main(flags(**FEW, steps=3, output_path=output)) == 0
    printed = capsys.readouterr()
    words = dict(word.split("=") for word in printed.out.splitlines()[-1].split(","))
    assert set(words) == {"attn_temperature", "attn_scale"}
    assert float(words["attn_scale"]) > 0.9
    assert "The result is one T and S for the model, not T and S of each head, from the start at T=0.9, S=0.9." in (
        printed.err
    )
    gradient = calibration_file.read(output).gradient
    assert gradient
    assert gradient.granularity == "model"
    assert gradient.taken == gradient.levels[0]


def test_tables_that_are_better_are_returned(
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teach(monkeypatch, lambda _: UNLIKE)
    output = str(tmp_path / "out")
    assert command.main(flags(**FEW, steps=4, output_path=output)) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"calibration={output}"
    gradient = calibration_file.read(output).gradient
    assert gradient
    assert gradient.taken == gradient.levels[-1]
    assert gradient.less_kl.start.mean > 0


def test_older_files_say_what_they_said(tmp_path: Path) -> None:
    valid = Path(__file__).parents[1] / "hostile" / "valid" / "calibration.json"
    gradient = calibration_file.read(valid).gradient
    assert gradient
    older = gradient.model_copy(update={"levels": []})
    assert not older.at_start
    lines = gradient_sentences(older)
    assert "6 is best on 1 samples for validation" in lines[0]
    assert lines[1].startswith("Penalty 0.0, by held-out KL (0.0: 1.029")
