"""What cannot work is told in a sentence, before any weight is loaded."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_ape.calibration import run
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.cli import main
from lm_eval_ape.cli.calibrate import build_parser
from lm_eval_ape.errors import ApeError
from lm_eval_ape.run_configs import __file__ as run_configs

CONFIGS = sorted(Path(run_configs).with_name("calibration").glob("*.yaml"))


@pytest.mark.usefixtures("own_tasks_alone")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_tokens": 0}, "num_tokens must be a whole number of at least 1, but got '0'"),
        ({"num_tokens": "many"}, "num_tokens must be a whole number of at least 1, but got 'many'"),
        ({"temperatures": ","}, "The grid is empty: temperatures"),
        ({"scales": "0.9,0"}, "scales must hold positive numbers, but got 0.0"),
        ({"temperatures": "0.9,-1"}, "temperatures must hold positive numbers, but got -1.0"),
        ({"temperatures": "0.9,1e-44"}, "temperatures must be at least 1e-06, but got 1e-44"),
        ({"temperatures": "0.9,hot"}, "temperatures must be numbers such as 0.8,0.9,1.0, but got 'hot'"),
        ({"history": "owm"}, "history must be one of own, teacher, but got 'owm'. Did you mean 'own'?"),
        ({"tasks": ["ape_longbench_2wikimqa_calibratio"]}, "Did you mean 'ape_longbench_2wikimqa_calibration'?"),
        ({"tasks": []}, "tasks must name at least one task"),
        ({"model_args": {"strategy": "sequential"}}, "T and S change nothing"),
        ({"model_args": {"attn_scale": 0.9}}, "model_args has attn_scale, which is what a calibration finds"),
        ({"model_args": {"chunk_token": 9}}, "Did you mean 'chunk_tokens'?"),
        ({"metadata": "{"}, "metadata must be JSON"),
        ({"limit": None, "samples": {"x": [-1]}}, "samples must give each task a list of document numbers"),
        ({"model_args": {"batch_size": 2}}, "model_args has batch_size, which has a flag of its own: --batch_size"),
        ({"limit": 2, "samples": {"x": [1]}}, "limit and samples exclude each other"),
        ({"metric": "score"}, "metric is only read with labels"),
        ({"metric": "scores", "with_labels": True}, "has no metric scores; it has: score"),
        ({"resamples": 0}, "resamples must be a whole number of at least 1"),
        ({"output_path": "/dev/null/out"}, "The folder /dev/null/out cannot be made"),
    ],
    ids=str,
)
def test_impossible_options_are_told_before_the_model_is_loaded(
    flags: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.setattr(run, "load", None)
    assert main(["calibrate", *flags(**given)]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""


def test_an_unknown_option_of_a_file_names_the_nearest() -> None:
    with pytest.raises(ApeError, match=r"no option 'num_token'\. Did you mean 'num_tokens'\?"):
        Options.read({"num_token": 3})


def test_samples_of_a_task_that_is_not_calibrated_on_are_refused(options: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ApeError, match="samples names the task 'other'"):
        run.calibrate(Options.read(options(limit=None, samples={"other": [1]})))


def test_help_teaches_every_option_and_imports_nothing_heavy() -> None:
    text = build_parser().format_help()
    assert all(f"--{name}" in text for name in Options.model_fields)
    assert "examples:" in text
    code = "import sys; from lm_eval_ape.cli import main\ntry: main(['calibrate', '--help'])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'transformers', 'lm_eval', 'scipy', 'numpy'} & set(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_configurations_are_accepted(file: Path) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    options = Options.read(content)
    assert options.tasks
    assert options.num_tokens >= 1


def test_the_papers_configurations_have_its_grids_and_chunks() -> None:
    shipped = {file.stem: Options.read(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in CONFIGS}
    for name, tokens, points in (("fars_2wikimqa_k1", 1, 25), ("fars_2wikimqa_k8", 8, 49)):
        paper = shipped[name]
        grid = run.make_grid(paper.temperatures, paper.scales, num_tokens=paper.num_tokens)
        assert (paper.num_tokens, len(grid.points), paper.history) == (tokens, points, "own")
        assert (paper.model_args["chunk_tokens"], paper.model_args["max_chunks"]) == (4000, 20)


@pytest.mark.parametrize(
    ("given", "penalty"), [("auto", None), ("inf", math.inf), ("0.3", 0.3), (0, 0.0), (math.inf, math.inf)]
)
def test_the_penalty_is_a_number_or_chosen_or_one_value_for_all(given: object, penalty: float | None) -> None:
    asked = {"model_args": "pretrained=pocket", "tasks": "t", "method": "gradient", "output_path": "out"}
    assert Options.read({**asked, "penalty": given}).penalty == penalty


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"penalty": "nan"}, "penalty must be auto, inf or a number of at least 0, but got 'nan'."),
        ({"penalty": -1}, "penalty must be auto, inf or a number of at least 0, but got -1."),
        ({"bounds": "4,0.25"}, "bounds must be two positive numbers, the smaller one first, but got '4,0.25'."),
        ({"bounds": "1"}, "bounds must be two positive numbers, the smaller one first, but got '1'."),
        ({"learning_rate": "0"}, "learning_rate must be a positive number, but got '0'."),
        ({"keep_gib": "inf"}, "keep_gib must be a positive number, but got 'inf'."),
        ({"folds": 1}, "folds must be a whole number of at least 2, but got 1."),
        ({"granularity": "heads"}, "must be one of model, layer, head, but got 'heads'. Did you mean 'head'?"),
        ({"history": "own"}, "history=own has no gradient"),
        ({"granularity": "model", "penalty": 1}, "granularity=model has one value for all"),
        ({"method": "grid", "steps": 3}, "steps is only read with a gradient"),
        ({"scales": "0.9"}, "scales is only read with a grid"),
    ],
    ids=str,
)
def test_impossible_options_of_a_gradient_are_refused_with_a_sentence(given: dict[str, Any], told: str) -> None:
    asked = {"model_args": "pretrained=pocket", "tasks": "t", "method": "gradient", "output_path": "out"}
    with pytest.raises(ApeError) as error:
        Options.read({**asked, **given})
    assert told in str(error.value)
