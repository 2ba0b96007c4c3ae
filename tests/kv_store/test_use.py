"""The store through the harness, a comparison and a calibration: counted, and without a trace in the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers import harness
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.settings.option_values import byte_size

DOCS = harness.documents(3)


def test_a_second_run_takes_its_chunks_from_the_folder_and_answers_alike(checkpoint: str, tmp_path: Path) -> None:
    task = harness.task("small", "generate_until", DOCS)
    args = {"pretrained": checkpoint, "chunking": "passages", "kv_cache_dir": str(tmp_path / "kv")}
    first, second = (harness.evaluate("ape-hf", args, task, batch_size=2) for _ in range(2))
    plain = harness.evaluate("ape-hf", {"pretrained": checkpoint, "chunking": "passages"}, task, batch_size=2)
    for run in (first, second):
        assert harness.responses(run, "small") == harness.responses(plain, "small")
    kept = [run["config"]["lm_eval_ape"]["kv_cache"] for run in (first, second)]
    assert kept[0]["misses"] > 0
    assert kept[1]["disk_hits"] == kept[0]["misses"] + kept[0]["disk_hits"]
    assert kept[1]["misses"] == 0
    assert kept[1]["dir_bytes"] == sum(file.stat().st_size for file in (tmp_path / "kv").iterdir())
    assert "kv_cache" not in plain["config"]["lm_eval_ape"]


def test_strategies_of_a_comparison_share_the_memory(checkpoint: str, tmp_path: Path) -> None:
    def board(folder: str, **store: Any) -> dict[str, Any]:
        given = {
            "model_args": {"pretrained": "pocket", "chunking": "passages", **store},
            "tasks": "ape_pocket_onehop_test",
            "strategies": "sink,ape",
            "baseline": "sink",
            "limit": 2,
            "output_path": str(tmp_path / folder),
        }
        found = compare(Options.read(given)).as_json()
        assert found is not None
        return found

    with_store, without = board("store", kv_cache_bytes="64MiB"), board("plain")
    records = [json.loads((tmp_path / "store" / name / "run.json").read_text()) for name in ("sink", "ape")]
    (first,), (second,) = (record["kv_cache"] for record in records)
    assert first["misses"] > 0
    assert (second["memory_hits"], second["misses"]) == (first["misses"] + first["memory_hits"], 0)
    for task, rows in without["samples"].items():
        for one, other in zip(rows, with_store["samples"][task], strict=True):
            for label, run in one["runs"].items():
                assert run["prediction"] == other["runs"][label]["prediction"]


def test_a_calibration_reads_what_the_folder_holds(tmp_path: Path) -> None:
    def run(**store: Any) -> dict[str, Any]:
        options = {
            "model_args": {"pretrained": "pocket", "chunking": "passages", "max_chunks": 2, **store},
            "tasks": "ape_pocket_twohop_calibration",
            "limit": 2,
            "temperatures": "0.9,1.0",
            "scales": "0.9,1.0",
        }
        return calibrate(CalibrationOptions.read(options)).as_json()

    plain, cold, warm = run(), run(kv_cache_dir=str(tmp_path)), run(kv_cache_dir=str(tmp_path))
    for found in (cold, warm):
        assert found["grid"]["mean_kl"] == plain["grid"]["mean_kl"]
    assert len(list(tmp_path.glob("*.safetensors"))) > 2


@pytest.mark.parametrize(
    ("text", "number"), [("2GiB", 2 * 2**30), ("500 MB", 500_000_000), ("1000000", 1_000_000), (4096, 4096), ("0", 0)]
)
def test_sizes_are_read_with_units(text: Any, number: int) -> None:
    assert byte_size("kv_cache_bytes", text) == number


@pytest.mark.parametrize("text", ["two", "2 gigs", "-1", "", True, None])
def test_impossible_sizes_are_told_in_a_sentence_before_anything_is_loaded(text: Any) -> None:
    with pytest.raises(ApeError, match="kv_cache_bytes must be a number of bytes such as 2GiB"):
        ApeHFLM("no/such/model", kv_cache_bytes=text)
