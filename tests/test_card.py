"""The model card's part: what it says, and metadata that the Hub's own library reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from huggingface_hub import ModelCard

from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.errors import ApeError
from lm_eval_ape.report.model_card import card
from lm_eval_ape.settings.strategy import Settings

BEAT = {"mean": 0.1, "low": 0.02, "high": 0.2, "positive": 0.99}
SETTINGS: dict[str, Any] = {
    "strategy": "ape", "scale_mode": "lse", "shared_prefix": True, "chunking": "passages", "chunk_tokens": None,
    "max_chunks": None, "prefix": Settings().prefix, "positions": "shared",
    "context_field": Settings().context_field,
}  # fmt: skip
PARAMETER = {"mode": 0.9, "low": 0.9, "high": 0.9, "width": 0.0, "stable": True}
CHOICE = {"attn_temperature": 0.9, "attn_scale": 1.0, "mean_kl": 0.3, "ties": []}
SPREAD = {"least": 0.3, "most": 0.5, "range": 0.2}
CALIBRATION: dict[str, Any] = {
    "schema_version": 1,
    "created": "2026-01-01",
    "device": "cpu",
    "versions": {"lm_eval_ape": "0.1.0"},
    "model": {
        "pretrained": "org/model", "revision": "main", "commit": "abc", "peft": None, "delta": None,
        "dtype": "torch.bfloat16", "parameters": 1000, "weights_sha256": "ab",
    },
    "settings": {**SETTINGS, "separator": "\n\n"},
    "tasks": [{"task": "toy", "samples": 32, "version": "1.0", "documents_sha256": "", "prompts_sha256": ""}],
    "requests": {},
    "objective": {"num_tokens": 8, "history": "own", "after_eos": "stop"},
    "grid": {
        "temperatures": [0.9, 1.0], "scales": [0.9, 1.0], "points": [[0.9, 0.9], [0.9, 1.0], [1.0, 0.9], [1.0, 1.0]],
        "choosable": [True] * 4, "mean_kl": [0.4, 0.3, 0.35, 0.5],
    },
    "samples": [
        {
            "task": "toy", "doc_id": 0, "number": 0, "prompt_sha256": "", "tokens": 9, "chunks": 2,
            "kl": [0.4, 0.3, 0.35, 0.5], "positions": [8] * 4,
        }
    ],
    "left_out": {"too_long": 0, "no_context": 0},
    "choice": {
        **CHOICE, "edges": ["T=0.9"], "temperature_only": CHOICE, "scale_only": CHOICE,
        "over_temperature": SPREAD, "over_scale": SPREAD, "range_ratio": 1.0,
    },
    "stability": {
        "resamples": 1000, "seed": 1, "beats": {"default": BEAT, "neutral": BEAT}, "frequencies": [],
        "temperature": PARAMETER, "scale": {**PARAMETER, "low": 0.6, "high": 1.0, "stable": False},
    },
    "labels": None,
    "test": None,
    "seconds": {},
}  # fmt: skip
CALIBRATED = Calibration.model_validate(CALIBRATION)
SCORE = {
    "score": 0.48, "stderr": 0.03, "kept": None, "kl": None,
    "difference": {"mean": -0.02, "low": -0.05, "high": 0.01, "p_value": 0.2, "within_noise": True},
}  # fmt: skip
ROW = {"model": "org/model", "config": {}, "device": None, "kl": None, "average": None, "costs": None}
BOARD: dict[str, Any] = {
    "schema_version": 1,
    "created": "2026-01-01",
    "command": "",
    "versions": {"lm_eval_ape": "0.1.0"},
    "statistics": {"confidence": 0.95, "resamples": 99, "seed": 1},
    "notes": [],
    "lengths": {"unit": "tokens", "tasks": [], "buckets": [], "rows": {}},
    "samples": {},
    "baseline": "sequential",
    "tasks": {
        "ape_longbench_2wikimqa_test": {
            "metric": "score", "documents": 168, "higher_is_better": True,
            "config": {"dataset_kwargs": {"longbench_dataset": "2wikimqa"}, "test_split": "test"},
        },
        "mine": {"metric": "acc", "documents": 9, "higher_is_better": True, "config": {"custom_dataset": "mine"}},
    },
    "rows": [
        {
            **ROW, "label": "sequential",
            "settings": {"strategy": "sequential", "attn_temperature": 1.0, "attn_scale": 1.0},
            "identity": None, "tasks": {},
        },
        {
            **ROW, "label": "ape@c",
            "settings": {**CALIBRATION["settings"], "attn_temperature": 0.9, "attn_scale": 1.0},
            "identity": {"model": {"weights_sha256": "ab"}},
            "tasks": {"ape_longbench_2wikimqa_test": SCORE, "mine": SCORE},
        },
    ],
}  # fmt: skip


def test_a_card_says_what_was_chosen_how_sure_it_is_and_what_it_does_not_show() -> None:
    text = card(CALIBRATED)
    assert text.startswith("## Parallel context encoding")
    line = (
        "--model_args pretrained=org/model,strategy=ape,chunking=passages,attn_temperature=0.9,attn_scale=1.0 --tasks"
    )
    assert line in text
    assert "T is stable" in text
    assert "S is **unstable**" in text
    assert "| chosen | 0.9 | 1 | 0.3 | |" in text
    assert "| untuned | 1 | 1 | 0.5 | 0.1 [0.02, 0.2] |" in text
    assert "grid's edge (T=0.9)" in text
    assert "What this does not show" in text


def test_the_hubs_library_reads_the_metadata_and_finds_only_data_sets_of_the_hub() -> None:
    read = ModelCard(card(CALIBRATED, Board.model_validate(BOARD)), ignore_metadata_errors=False)
    (result,) = read.data.eval_results
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == (
        "zai-org/LongBench",
        "2wikimqa",
        "test",
    )
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-generation", "score", 48.0)
    assert read.data.base_model == "org/model"
    assert "| `mine` | acc | 9 |" in read.text
    assert "-2.00 [-5.00, +1.00] | 0.200 |" in read.text


def test_results_on_nothing_of_the_hub_make_no_metadata() -> None:
    board = copy.deepcopy(BOARD)
    for task in board["tasks"].values():
        task["config"] = {"dataset_path": "json"}
    assert not card(CALIBRATED, Board.model_validate(board)).startswith("---")


def test_a_board_without_the_calibrated_setting_is_refused() -> None:
    board = copy.deepcopy(BOARD)
    board["rows"][1]["settings"]["attn_scale"] = 0.9
    with pytest.raises(ApeError, match=r"no row of org/model with T=0.9, S=1 .* it has sequential, ape@c"):
        card(CALIBRATED, Board.model_validate(board))
