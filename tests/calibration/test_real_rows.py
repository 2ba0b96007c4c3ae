"""A calibration on real rows of LongBench, with a random model."""

from __future__ import annotations

from pathlib import Path

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import calibrate


def test_real_rows_are_calibrated_on(longbench_dir: Path, float32_checkpoint: str, tmp_path: Path) -> None:
    model = {"pretrained": float32_checkpoint, "chunk_tokens": 2000, "max_length": 65536}
    task = "ape_longbench_2wikimqa_calibration"
    # The shortest rows: the tiny tokenizer makes long ones of the others.
    given = {"tasks": task, "samples": {task: [2, 7]}, "metadata": {"longbench_dir": str(longbench_dir)}}
    grid = {"temperatures": [0.8, 1.0], "scales": [0.8, 1.0], "num_tokens": 2, "max_rows": 4}
    calibrate(Options.read({"model_args": model, "device": "cpu", **given, **grid, "output_path": str(tmp_path)}))
    found = calibration_file.read(tmp_path).as_json()
    assert [sample["doc_id"] for sample in found["samples"]] == [2, 7]
    assert all(sample["tokens"] > 4000 and sample["chunks"] > 1 for sample in found["samples"])
    assert all(0 <= kl < 100 for sample in found["samples"] for kl in sample["kl"])
