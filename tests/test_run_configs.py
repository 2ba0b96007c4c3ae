"""Every run configuration is one that the harness accepts, for tasks and settings that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.tasks import TaskManager

from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.tasks import TASKS_DIR

FOLDER = Path(__file__).parents[1] / "run_configs"
CONFIGS = [path for path in sorted(FOLDER.glob("*/*.yaml")) if path.parent.name != "calibration"]


@pytest.fixture(scope="module")
def tasks() -> set[str]:
    return set(TaskManager(include_path=str(TASKS_DIR), include_defaults=False).all_tasks)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_is_accepted_and_names_what_exists(path: Path, tasks: set[str]) -> None:
    config = EvaluatorConfig.from_config(path)
    assert config.model == "ape-hf"
    settings, rest = split_arguments(config.model_args)
    assert settings.strategy == path.stem.split("_")[0]
    assert rest.keys() <= {"pretrained", "dtype"}
    assert set(config.tasks) <= tasks
    assert config.output_path == f"out/{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("preset", ["C200x20", "C4000x20"])
def test_a_preset_has_a_row_of_ape_and_one_of_the_sequential_model_on_the_same_chunks(preset: str) -> None:
    found = []
    for strategy in ("ape", "sequential"):
        path = FOLDER / "llama-3.1-8b-instruct" / f"{strategy}_{preset.lower()}.yaml"
        found.append(split_arguments(yaml.safe_load(path.read_text(encoding="utf-8"))["model_args"])[0])
    names = ("preset", "retriever", "chunking", "chunk_tokens", "max_chunks")
    ape, sequential = ({name: getattr(settings, name) for name in names} for settings in found)
    tokens = int(preset.removeprefix("C").removesuffix("x20"))
    assert ape == sequential == dict(zip(names, (preset, "bm25", "tokens", tokens, 20), strict=True))


def test_the_published_rows_are_all_there() -> None:
    points = set()
    for path in (FOLDER / "llama-3.1-8b-instruct").glob("ape_*.yaml"):
        args = yaml.safe_load(path.read_text(encoding="utf-8"))["model_args"]
        points.add((args["attn_temperature"], args["attn_scale"]))
    assert points == {(0.9, 0.9), (0.7, 0.8), (1.0, 0.9), (0.95, 1.0), (0.9, 0.8)}
