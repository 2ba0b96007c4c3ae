"""The same command gives the same bytes, in one process or in two that order their sets differently."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Runs a calibration and a comparison in each of the folders given, without what is not compared.
SCRIPT = """
import os, sys, torch
from unittest import mock
torch.set_num_threads(1)
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options
model = {"pretrained": "pocket", "chunking": "passages", "max_chunks": 2}


@mock.patch("matplotlib.figure.Figure.savefig", lambda figure, file, **_: file.touch())
@mock.patch("torch.utils.collect_env.get_pretty_env_info", lambda: "")
def run(folder):
    os.makedirs(folder)
    os.chdir(folder)
    given = {"model_args": model, "limit": 3, "device": "cpu"}
    own = {"tasks": "ape_pocket_twohop_calibration", "num_tokens": 2, "temperatures": "0.9,1.0", "scales": "0.9"}
    own |= {"method": "grid+gradient", "steps": 2, "entropy": True, "output_path": "calibration"}
    calibrate(CalibrationOptions.read({**given, **own}))
    own = {"tasks": "ape_pocket_twohop_test", "strategies": "sequential,sink+selective,ape"}
    compare(Options.read({**given, **own, "kl_tokens": 2, "answer_nats": True, "output_path": "board"}))


for folder in sys.argv[1:]:
    run(folder)
"""
# What tells when and how fast a run was, and what the machine had in use.
VOLATILE = re.compile(r"created|date|.*second.*|.*time.*|.*memory.*|pretty_env_info|.*bytes.*")
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d[:-]\d\d[:-]\d\d\.\d+")
ADDRESS = re.compile(r"0x[0-9a-f]+")


def stable(value: Any) -> Any:
    """A JSON value without what may differ."""
    if isinstance(value, dict):
        return {key: stable(inner) for key, inner in value.items() if not VOLATILE.fullmatch(key)}
    return [stable(inner) for inner in value] if isinstance(value, list) else value


def files(folder: Path) -> dict[str, Any]:
    """Names and contents of a run's files, without dates, timings, addresses in memory and the folder's own name."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = DATE.sub("DATE", str(path.relative_to(folder)))
        if path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.suffix in (".json", ".jsonl", ".yaml") and not path.name.startswith("seconds."):
            text = DATE.sub("DATE", ADDRESS.sub("ADDRESS", path.read_text(encoding="utf-8")))
            text = text.replace(str(folder), "FOLDER")
            lines = [text] if path.suffix == ".json" else text.splitlines()
            found[name] = lines if path.suffix == ".yaml" else [stable(json.loads(line)) for line in lines]
        else:
            # Tables with seconds in them, and figures of what the JSON files hold.
            found[name] = None
    return found


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [found for key in keys for found in differences(one.get(key), other.get(key), f"{place}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, pair in pairs for found in differences(*pair, f"{place}[{number}]")]
    return [] if one == other else [f"{place}: {str(one)[:120]} != {str(other)[:120]}"]


@pytest.mark.slow
def test_calibrations_and_comparisons_are_the_same_in_one_process_and_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "other")],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "first"), str(tmp_path / "again")])
    monkeypatch.chdir(tmp_path)
    exec(SCRIPT, {"__name__": "script"})
    out, _ = other.communicate()
    assert other.returncode == 0, out[-3000:]
    first = files(tmp_path / "first")
    assert {
        "calibration/calibration.json",
        "board/board.json",
        "board/ape/kl.json",
        "board/ape/answer_nats.json",
    } <= set(first)
    for name in ("again", "other"):
        assert differences(first, files(tmp_path / name)) == []
