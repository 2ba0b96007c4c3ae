"""Every benchmark runs at a tiny size and writes what it measured; times are not looked at."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"
TINY = ["--shape", "tiny", "--repeats", "1"]
RUNS = {
    "prefill": ["--tokens", "64", "--chunks", "2", "--query", "4"],
    "decode": ["--tokens", "64", "--query", "4", "--new", "3"],
    "grid": ["--tokens", "64", "--query", "4", "--steps", "2", "--sampled", "1"],
    "whole_calibration": ["--tokens", "64", "--query", "4", "--steps", "2", "--samples", "2"],
    "stored_chunks": ["--tokens", "64", "--query", "4"],
    "selection": ["--tokens", "64", "--query", "4", "--new", "3", "--chunks", "4"],
    "harness_run": ["--words", "40", "--rows", "1"],
    "end_to_end": ["--tokens", "64", "--query", "4", "--new", "2"],
    "dry_run": ["--limit", "1", "--passages", "4", "--only", "1"],
    "attention_kernels": ["--keys", "7", "--widths", "16", "--queries", "3", "--dtypes", "float32", "bfloat16"],
    "compiled": ["--tokens", "64", "--query", "4", "--new", "2", "--steps", "2", "--backend", "eager"],
}


@pytest.fixture(autouse=True)
def beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def numbers(content: Any) -> list[float]:
    if isinstance(content, dict):
        return [number for value in content.values() for number in numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in numbers(value)]
    return [float(content)] if isinstance(content, (int, float)) else []


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_measures_and_writes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *RUNS[name], *TINY, "--json", str(file)])
    module = importlib.import_module(name)
    if name == "dry_run":
        # Forecast and run in this process: others would import everything anew.
        monkeypatch.setattr(
            module, "alone", lambda _, command, options, *, dry: module.work(command, options, "wall", dry=dry)
        )
    module.main()
    content = json.loads(file.read_text(encoding="utf-8"))
    for table in content["tables"]:
        assert table["rows"]
        assert all(len(row) == len(table["headers"]) for row in table["rows"])
    found = numbers(content["figures"])
    assert found
    assert all(number > 0 for number in found)


@pytest.mark.slow
def test_one_script_makes_all_figures_of_a_gpu_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    out = tmp_path / "gpu"
    command = [str(FOLDER / "gpu.sh"), "--tiny", "--output_path", str(out)]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def run(**options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)

    first = run(timeout=580)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    with tarfile.open(f"{out}.tar.gz") as archive:
        held = {Path(name).name for name in archive.getnames()}
    figures = {path.stem for path in out.glob("*.json")}
    assert {f"{name}.json" for name in figures} | {"machine.txt", "tests.log"} <= held
    assert len(figures) == 11
    for name in figures:
        assert json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["tables"][0]["rows"]
    (out / "kernels.done").unlink()
    again = run(timeout=120)
    assert re.findall(r"^== (\w+)", again.stdout, re.MULTILINE) == ["kernels"]


def test_the_gpu_script_says_what_it_wants(tmp_path: Path) -> None:
    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command, given = [str(FOLDER / "gpu.sh"), *words], {**os.environ, **environment}
        return subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "--tiny" in run("--help").stdout
    wrong = run("--fast")
    assert (wrong.returncode, wrong.stderr) == (2, "gpu.sh: there is no option --fast; see gpu.sh --help\n")
    alone = run(PYTHON="/nowhere/python")
    assert alone.returncode == 2
    assert alone.stderr.startswith("gpu.sh: there is no /nowhere/python: run make setup first")
    assert not list(tmp_path.iterdir())


def test_operations_are_counted_as_the_formulas_say() -> None:
    workload = importlib.import_module("workload")
    shape = workload.SHAPES["llama-3.1-8b"]
    # Llama-3.1-8B's makers give 8.03 billion; norms are left out here.
    assert shape.parameters == pytest.approx(8.03e9, rel=1e-3)
    one = workload.operations(shape, context=8192, chunks=1, query=64)
    many = workload.operations(shape, context=8192, chunks=4, query=64)
    # One chunk does what one sequence does; four leave three quarters of the context's attention out.
    assert one.parallel == pytest.approx(one.sequential, rel=1e-3)
    attention = 4 * 32 * 128 * 32 * 8192 * 8192 / 2
    assert one.encoding() - many.encoding() == pytest.approx(0.75 * attention, rel=1e-9)


def test_the_runner_names_every_benchmark_there_is() -> None:
    runner = importlib.import_module("all")
    # Those on the shipped model make the tables of other pages; the rest is what benchmarks are made of.
    others = {
        "all",
        "flags",
        "timing",
        "peaks",
        "workload",
        "pocket_chunks",
        "finer_than_a_grid",
        "head_factors",
        "numerics",
        "recomputation",
        "real_model",
    }
    assert {path.stem for path in FOLDER.glob("*.py")} - others == set(runner.FULL) == set(runner.QUICK)
