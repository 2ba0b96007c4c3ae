"""Prompts and lengths are the official ones; the YAML files are what the catalogue says."""

import json
from pathlib import Path

import pytest

from lm_eval_ape.tasks.longbench import generate
from lm_eval_ape.tasks.longbench.catalogue import DATASETS


def test_prompts_are_the_official_ones_byte_for_byte(longbench_dir: Path) -> None:
    official = json.loads((longbench_dir / "config/dataset2prompt.json").read_bytes())
    assert {name: dataset.prompt for name, dataset in DATASETS.items()} == official


def test_generation_lengths_are_the_official_ones(longbench_dir: Path) -> None:
    official = json.loads((longbench_dir / "config/dataset2maxlen.json").read_bytes())
    assert {name: dataset.max_gen_toks for name, dataset in DATASETS.items()} == official


def test_there_are_21_datasets_and_13_in_the_e_version() -> None:
    assert len(DATASETS) == 21
    assert sum(dataset.rows_e is not None for dataset in DATASETS.values()) == 13
    assert sum(dataset.rows for dataset in DATASETS.values()) == 4750


@pytest.mark.parametrize("name", DATASETS)
def test_a_prompt_has_the_context_once_after_an_instruction(name: str) -> None:
    head, _, tail = DATASETS[name].prompt.partition("{context}")
    assert head.strip()
    assert "{context}" not in tail


def test_the_yaml_files_are_what_the_generator_writes() -> None:
    files = {
        path.relative_to(generate.FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in generate.FOLDER.rglob("*.yaml")
    }
    assert files == generate.yaml_files()
