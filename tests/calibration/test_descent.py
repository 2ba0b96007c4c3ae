"""`calibrate --method gradient`, from the command line to the models, boards and caches that take its result up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers import harness
from helpers.taught import UNLIKE, teach
from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.artefacts.gradient_fit import FactorTables
from lm_eval_ape.artefacts.moved_heads import moved
from lm_eval_ape.artefacts.points import DEFAULT
from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.calibration import figures
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.cli import calibrate as command
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.specs import describe, read_specs

FEW = {
    "method": "gradient",
    "temperatures": None,
    "scales": None,
    "num_tokens": 2,
    "steps": 2,
    "folds": 2,
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, rows: str, checkpoint: str) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    model = {"pretrained": checkpoint, "dtype": "float64", "chunk_tokens": 40}
    given = {"model_args": model, "tasks": "ape_longbench_2wikimqa_calibration", "metadata": {"longbench_dir": rows}}
    fit = {**FEW, "limit": 4, "penalty": 0, "prefix_factors": True, "device": "cpu", "output_path": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        teach(patch, lambda _: UNLIKE)
        calibrate(Options.read({**given, **fit}))
    return folder


def test_the_last_line_names_the_file_and_a_killed_run_is_not_computed_again(
    flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch, lambda _: UNLIKE)
    line = flags(**FEW, granularity="head", output_path=str(tmp_path / "out"))
    assert command.main(line) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"calibration={tmp_path / 'out'}"
    assert "Moved most from (T=0.9, S=0.9): 10 of 12" in printed.err
    first = calibration_file.read(tmp_path / "out").as_json()
    assert first["schema_version"] == 2
    assert first["objective"]["history"] == "teacher"
    assert np.shape(first["gradient"]["factors"]["temperature"]) == (3, 4)
    assert [one["penalty"] for one in first["gradient"]["held_out"]] == [1.0, 0.0]
    assert [one["taken"] for one in first["gradient"]["levels"]] == [False, False, True]
    names = {"factors.png", "factors.svg", "training.png", "training.svg", "run_config.yaml"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}

    monkeypatch.setattr(
        "lm_eval_ape.calibration.gradient.fit.Fit._measure", lambda *_, **__: pytest.fail("computed again")
    )
    assert command.main(line) == 0
    second = calibration_file.read(tmp_path / "out").as_json()
    for one in (first, second):
        one.pop("created"), one.pop("seconds")
    assert first == second


def test_granularity_model_ends_with_numbers(
    flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch, lambda _: Factors.of(0.5, 1.6))
    assert command.main(flags(**FEW, granularity="model")) == 0
    words = capsys.readouterr().out.splitlines()[-1].split(",")
    assert [word.split("=")[0] for word in words] == ["attn_temperature", "attn_scale"]
    assert all(float(word.split("=")[1]) != 0.9 for word in words)


def test_a_gradient_after_a_grid_starts_from_its_choice(options: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    given = {"method": "grid+gradient", "granularity": "layer", "steps": 1, "penalty": 0, "num_tokens": 2}
    content = calibrate(Options.read(options(**given, output_path=str(tmp_path)))).as_json()
    choice, gradient = content["choice"], content["gradient"]
    assert gradient["start"] == [choice["attn_temperature"], choice["attn_scale"]]
    assert [level["granularity"] for level in gradient["levels"]] == ["model", "layer"]
    assert len(content["grid"]["points"]) > 6
    assert {"kl_surface.png", "training.png"} <= {path.name for path in tmp_path.iterdir()}


def test_a_model_reads_with_the_tables_and_says_so(
    fitted: Path, load: Callable[..., ApeHFLM], options: Callable[..., dict[str, Any]]
) -> None:
    content = calibration_file.read(fitted).as_json()
    lm = load(chunk_tokens=40, calibration=str(fitted))
    assert lm.settings.factors == Factors.from_json(content["gradient"]["factors"])
    assert lm.get_model_info()["lm_eval_ape"]["factors_sha256"] == content["gradient"]["sha256"]
    # Its divergence on the calibration's rows, measured by a model that loaded the file as its encoded.
    reading = lm.engine.reading([])
    assert tuple(reading.temperature.shape) == (1, 3, 4)
    assert reading.tempers_prefix
    config = yaml.safe_load((fitted / "run_config.yaml").read_text(encoding="utf-8"))
    assert config["model_args"]["calibration"] == str(fitted)


def test_generations_depend_on_the_tables(fitted: Path, checkpoint: str) -> None:
    task = harness.task("answers", "multiple_choice", harness.documents(3))
    shared = {"pretrained": checkpoint, "chunk_tokens": 40}
    own = harness.evaluate("ape-hf", {**shared, "calibration": str(fitted)}, task)
    plain = harness.evaluate("ape-hf", shared, task)
    assert harness.responses(own, "answers") != harness.responses(plain, "answers")
    assert own["config"]["lm_eval_ape"]["factors_sha256"]


def write_changed(folder: Path, content: dict[str, Any]) -> None:
    """A calibration with other tables, as if it had been fitted so."""
    content["gradient"]["sha256"] = Factors.from_json(content["gradient"]["factors"]).digest
    calibration_file.write(folder, Calibration.model_validate(content), {})


def test_a_cache_filled_with_other_tables_is_refused(fitted: Path, checkpoint: str, tmp_path: Path) -> None:
    task = harness.task("answers", "multiple_choice", harness.documents(1))
    arguments = {"pretrained": checkpoint, "chunk_tokens": 40, "calibration": str(fitted)}
    cache = {"use_cache": str(tmp_path / "cache")}
    harness.evaluate("ape-hf", arguments, task, **cache)
    content = calibration_file.read(fitted).as_json()
    content["gradient"]["factors"]["scale"][0][0] += 1e-6
    write_changed(tmp_path / "other", content)
    with pytest.raises(ApeError, match=r"holds responses of other settings .*factors_sha256"):
        harness.evaluate("ape-hf", {**arguments, "calibration": str(tmp_path / "other")}, task, **cache)


def test_compare_takes_the_tables_and_tells_them_from_numbers(fitted: Path, checkpoint: str) -> None:
    specs = read_specs([f"ape@{fitted}", "ape"], {"pretrained": checkpoint, "chunk_tokens": 40})
    digest = calibration_file.read(fitted).as_json()["gradient"]["sha256"]
    assert describe(specs[0].settings.record) == f"T and S by layer and head ({digest[:8]}) chunk_tokens=40"
    assert "factors_sha256" not in specs[1].settings.record


@pytest.mark.parametrize("changed", [{"chunk_tokens": 41}, {"strategy": "sink"}, {"pretrained": "org/other"}])
def test_tables_made_for_something_else_are_refused(fitted: Path, checkpoint: str, changed: dict[str, Any]) -> None:
    given = {"pretrained": checkpoint, "chunk_tokens": 40, "calibration": str(fitted), **changed}
    with pytest.raises(ApeError, match="was made for something else"):
        split_arguments(given)


def test_tables_for_another_number_of_heads_are_refused(
    fitted: Path, tmp_path: Path, load: Callable[..., ApeHFLM]
) -> None:
    content = calibration_file.read(fitted).as_json()
    content["gradient"]["factors"] = Factors(((0.9,) * 5,) * 3, ((0.9,) * 5,) * 3).json
    write_changed(tmp_path, content)
    with pytest.raises(ApeError, match="3 layers of 5 heads, but the model has 3 of 4"):
        load(chunk_tokens=40, calibration=str(tmp_path))


def test_choices_are_tested_and_scored_on_other_rows(
    options: Callable[..., dict[str, Any]], toy_tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch, lambda _: UNLIKE)
    toy = {"tasks": "toy_calibration", "include_path": toy_tasks, "metadata": {}, "output_path": str(tmp_path)}
    content = calibrate(Options.read(options(**{**FEW, **toy, "penalty": 0, "with_labels": True}))).as_json()
    rows = {row["name"]: row for row in content["test"]["rows"]}
    assert list(rows) == ["chosen", "start", "default", "neutral"]
    assert len(rows["chosen"]["kl"]) == len(rows["chosen"]["scores"]) == 5
    assert rows["chosen"]["kl"] != rows["start"]["kl"]
    assert content["labels"] is None


def test_heads_are_listed_from_the_farthest() -> None:
    factors = Factors(((0.9, 1.8), (0.9, 0.9)), ((0.9, 0.9), (0.45, 0.9))).json
    found = moved(FactorTables(**factors), DEFAULT)
    assert [one.name for one in found[:2]] == ["layer 0, head 1", "layer 1, head 0"]
    assert found[0].distance == pytest.approx(np.log(2))
    assert found[2].distance == found[3].distance == pytest.approx(0)


def test_the_heat_map_shows_every_number(fitted: Path) -> None:
    gradient = calibration_file.read(fitted).gradient
    assert gradient
    axes = figures.factors(gradient).axes
    assert [one.get_title() for one in axes[:4]] == [
        "T of the context",
        "S of the context",
        "T of the prefix",
        "S of the prefix",
    ]
    shown = [text.get_text() for text in axes[0].texts]
    assert shown == [f"{value:.2f}" for row in gradient.factors.temperature for value in row]
    assert np.allclose(2 ** axes[1].images[0].get_array(), gradient.factors.scale)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"granularity": "layer"}, "granularity is only read with a gradient; add --method gradient"),
        ({"method": "gradient", "history": "own", "output_path": "out"}, "history=own has no gradient"),
        ({"method": "gradient", "temperatures": "0.9", "output_path": "out"}, "temperatures is only read with a grid"),
        ({"method": "gradient"}, "name a folder for it with --output_path"),
        ({"method": "gradient", "output_path": "a,b"}, "cannot name a path with a comma"),
        ({"method": "gradient", "granularity": "model", "penalty": 1}, "granularity=model has one value for all"),
        ({"method": "descent"}, "method must be one of grid, gradient, grid\\+gradient, but got 'descent'"),
        ({"method": "gradient", "bounds": "2,1"}, "bounds must be two positive numbers, the smaller one first"),
        ({"method": "gradient", "penalty": "strong"}, "penalty must be "),
        ({"method": "gradient", "learning_rate": 0}, "learning_rate must be a positive number"),
    ],
)
def test_impossible_options_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ApeError, match=told):
        Options.read({"model_args": {"pretrained": "pocket"}, "tasks": "ape_longbench_2wikimqa_calibration", **given})


def test_older_files_load_as_they_are(fitted: Path, tmp_path: Path) -> None:
    content = calibration_file.read(fitted).as_json()
    del content["gradient"]
    content["schema_version"] = 1
    (tmp_path / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    assert calibration_file.found(calibration_file.read(tmp_path)) == (0.9, 0.9, None)
