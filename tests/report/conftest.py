"""A board and a calibration as our commands write them, with hostile text wherever a model or a data set can put it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_eval_ape.artefacts.board import SCHEMA_VERSION, Board
from lm_eval_ape.comparison.compare import write
from lm_eval_ape.comparison.statistics import estimate, paired

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><!-- $x_{1}$"
LABELS = ("sequential", "parallel", "ape", f"hf {HOSTILE}")
TASKS = ("toy_answer", "toy_choice")
DOCUMENTS = 120


def make_board() -> dict[str, Any]:
    """A board of four rows over two tasks, its numbers from the package's own statistics."""
    rng = np.random.default_rng(0)
    scores = {
        task: {label: (rng.random(DOCUMENTS) < 0.9 - 0.2 * number).astype(float) for number, label in enumerate(LABELS)}
        for task in TASKS
    }
    lengths = rng.integers(200, 2000, DOCUMENTS)
    nats = {label: rng.exponential(number, (DOCUMENTS, 4)) for number, label in enumerate(LABELS[:3])}

    def score_part(task: str, label: str) -> dict[str, Any]:
        found = estimate(scores[task][label])
        change = scores[task][label] - scores[task]["sequential"]
        kl = estimate(nats[label].mean(1)) if label in LABELS[1:3] else None
        return {
            "score": found.mean,
            "stderr": found.stderr,
            "kept": found.mean / scores[task]["sequential"].mean(),
            "difference": None if label == "sequential" else paired(change, resamples=99, seed=1).as_json(),
            "kl": kl and {**kl._asdict(), "documents": DOCUMENTS},
            "left_out": 0,
            "reported": {},
        }

    def request(task: str, number: int) -> dict[str, Any]:
        generates = task == "toy_answer"
        length = int(lengths[number])
        return {
            "idx": 0,
            "chunk_tokens": [length // 2] * 2,
            "tokens": length,
            "dropped_tokens": 0,
            "prefill_seconds": length / 1000 if generates else None,
            "seconds": length / 900,
            "new_tokens": 5 if generates else None,
        }

    def sample(task: str, number: int) -> dict[str, Any]:
        prompt = f"Document {number}. {HOSTILE if number == 3 else 'Which river?'}\nAnswer:"
        runs = {}
        for label in LABELS:
            right = scores[task][label][number]
            kl = (
                [{"tokens": ["a", " b", "\n", "<"], "nats": list(nats[label][number])}]
                if label in LABELS[1:3]
                else None
            )
            said = HOSTILE if number == 3 else "the Rhine" if right else f"the Elbe {number}"
            requests = None if label == LABELS[3] else [request(task, number)]
            runs[label] = {
                "score": right,
                "metrics": {"acc": right},
                "prediction": said,
                "requests": requests,
                "kl": kl,
            }
        target = HOSTILE if number == 3 else "the Rhine"
        shared = {"doc_id": number, "doc_hash": str(number), "occurrence": 0, "length": int(lengths[number])}
        return {**shared, "prompt_end": prompt, "target": target, "runs": runs}

    def row(label: str) -> dict[str, Any]:
        ours = label != LABELS[3]
        strategy = {"strategy": label, "attn_temperature": 0.9, "attn_scale": 0.9, "chunking": "passages"}
        middle = {"median": 0.5, "mean": 0.6, "max": 1.0}
        costs = {
            **dict.fromkeys(("prefill_seconds", "seconds", "scoring_seconds"), middle),
            **dict.fromkeys(("new_tokens", "chunks", "tokens"), middle),
            "requests": 240, "decode_tokens_per_second": 9.5, "dropped_tokens": 0, "peak_memory_bytes": 2**30,
            "peak_memory_of": "process, resident",
        }  # fmt: skip
        parts = {task: score_part(task, label) for task in TASKS}
        average = {**parts[TASKS[0]], "tasks": list(TASKS)}
        kl = {"num_tokens": 4, "history": "teacher", "after_eos": "stop"} if label in LABELS[1:3] else None
        return {
            "label": label, "model": "org/model", "settings": strategy if ours else None,
            "config": {"model": "ape-hf", "note": HOSTILE}, "provenance": {},
            "command": f"lm_eval --model ape-hf {label}",
            "versions": {"lm_eval_ape": "0.1.0"} if ours else None, "device": "cpu" if ours else None,
            "identity": {"model": {"weights_sha256": "ab"}} if ours else None, "created": "2026-01-01",
            "results_file": "results.json", "kl": kl, "tasks": parts, "average": average,
            "costs": costs if ours else None,
        }  # fmt: skip

    halves = [{"from": 128, "below": 1024, "documents": 60}, {"from": 1024, "below": 2048, "documents": 60}]
    facts = {"metric": "acc", "higher_is_better": True, "documents": DOCUMENTS, "filter": "none", "version": 1}
    return {
        "schema_version": SCHEMA_VERSION,
        "created": "2026-01-01T00:00:00+00:00",
        "command": "lm-eval-ape compare",
        "versions": {"lm_eval_ape": "0.1.0"},
        "baseline": "sequential",
        "statistics": {"confidence": 0.95, "resamples": 99, "seed": 1},
        "notes": [f"toy_answer: {HOSTILE}"],
        "tasks": {task: {**facts, "config": {"doc_to_text": HOSTILE}} for task in TASKS},
        "rows": [row(label) for label in LABELS],
        "lengths": {
            "unit": "tokens",
            "tasks": list(TASKS),
            "buckets": halves,
            "rows": {label: [estimate(scores[TASKS[0]][label])._asdict()] * 2 for label in LABELS},
        },
        "samples": {task: [sample(task, number) for number in range(DOCUMENTS)] for task in TASKS},
    }


@pytest.fixture(scope="session")
def whole_board() -> dict[str, Any]:
    """The board, made once."""
    return make_board()


@pytest.fixture
def board(whole_board: dict[str, Any]) -> dict[str, Any]:
    """A board that a test may change."""
    return copy.deepcopy(whole_board)


@pytest.fixture(scope="session")
def calibration_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of the shipped model, with labels."""
    from lm_eval_ape.calibration.options import Options
    from lm_eval_ape.calibration.run import calibrate

    folder = tmp_path_factory.mktemp("calibration")
    given = {"tasks": "ape_pocket_twohop_calibration", "limit": 3, "num_tokens": 2, "resamples": 50}
    model = {"pretrained": "pocket", "chunking": "passages", "max_chunks": 2}
    grid = {"temperatures": "0.9,1.0", "scales": "0.9,1.0", "metadata": {"pocket_passages": 3}, "with_labels": True}
    calibrate(Options.read({"model_args": model, "output_path": str(folder), "test_limit": 2, **given, **grid}))
    return folder


@pytest.fixture(scope="session")
def report_folder(
    whole_board: dict[str, Any], calibration_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a report of the board and the calibration."""
    from lm_eval_ape.report.page import report

    folder = tmp_path_factory.mktemp("report")
    write(folder, Board.model_validate(whole_board))
    assert json.loads((folder / "board.json").read_text())["rows"]
    report([str(folder), str(calibration_folder)])
    return folder
