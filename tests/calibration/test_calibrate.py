"""The command: what it prints and writes, and that it chooses the same however it is run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lm_eval.config.evaluate_config import EvaluatorConfig

from helpers import launcher
from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.calibration.objective import teacher
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.cli import main
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.catalogue import Catalogue

Flags = Callable[..., list[str]]
MakeOptions = Callable[..., dict[str, Any]]
ENVIRONMENT = launcher.ENVIRONMENT


def kl(folder: Path) -> np.ndarray:
    return np.array([sample["kl"] for sample in calibration_file.read(folder).as_json()["samples"]])


def test_stdout_ends_with_the_choice_and_holds_nothing_else(
    flags: Flags, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *flags(output_path=str(tmp_path))]) == 0
    choice = calibration_file.read(tmp_path).as_json()["choice"]
    expected = f"attn_temperature={choice['attn_temperature']},attn_scale={choice['attn_scale']}\n"
    assert capfd.readouterr().out == expected


@pytest.mark.usefixtures("pngs")
def test_the_folder_holds_a_valid_file_figures_and_a_configuration_for_the_harness(
    options: MakeOptions, tmp_path: Path
) -> None:
    found = calibrate(Options.read(options(output_path=str(tmp_path)))).as_json()
    assert calibration_file.read(tmp_path).as_json() == json.loads(json.dumps(found))
    figures = {f"{name}.{kind}" for name in ("kl_surface", "bootstrap") for kind in ("png", "svg")}
    assert figures < {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "kl_surface.png").read_bytes().startswith(b"\x89PNG")
    config = EvaluatorConfig.from_config(tmp_path / "run_config.yaml")
    assert config.model == "ape-hf"
    assert config.model_args["attn_temperature"] == found["choice"]["attn_temperature"]
    assert config.tasks == ["ape_longbench_2wikimqa_test"]


@pytest.mark.usefixtures("own_tasks_alone")
def test_the_written_configuration_runs_in_the_harness(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(Options.read(options(output_path=str(tmp_path))))
    given = ["--config", str(tmp_path / "run_config.yaml"), "--limit", "1", "--output_path", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", [])
    assert main(["run", *given]) == 0
    results = json.loads(next((tmp_path / "results").rglob("results_*.json")).read_text(encoding="utf-8"))
    choice = calibration_file.read(tmp_path).as_json()["choice"]
    assert results["config"]["lm_eval_ape"]["attn_temperature"] == choice["attn_temperature"]
    assert results["config"]["lm_eval_ape"]["attn_scale"] == choice["attn_scale"]


def test_a_killed_run_goes_on_where_it_stopped_and_chooses_the_same(flags: Flags, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = flags(limit=6, num_tokens=8, temperatures="0.6,0.8,1.0", scales="0.6,0.8,1.0")
    assert main(["calibrate", *given, "--output_path", str(whole)]) == 0
    shutil.copytree(whole / "cache", killed / "cache")
    journal = killed / "cache" / "signals.0.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    # What a run leaves that was killed in the middle of its third line.
    before = b"".join(lines[:2])
    journal.write_bytes(before + lines[2][:20])
    assert main(["calibrate", *given, "--output_path", str(killed)]) == 0
    assert journal.read_bytes().startswith(before)
    assert len(journal.read_bytes().splitlines()) == 6
    files = [calibration_file.read(folder).as_json() for folder in (killed, whole)]
    for name in ("attn_temperature", "attn_scale"):
        assert files[0]["choice"][name] == files[1]["choice"][name]
    assert np.allclose(kl(killed), kl(whole), atol=1e-12, rtol=0)


@pytest.mark.parametrize("max_rows", [1, 8])
def test_batches_of_one_and_of_eight_points_choose_the_same(options: MakeOptions, max_rows: int) -> None:
    whole = calibrate(Options.read(options())).as_json()
    pieces = calibrate(Options.read(options(max_rows=max_rows))).as_json()
    assert pieces["choice"]["attn_temperature"] == whole["choice"]["attn_temperature"]
    assert pieces["choice"]["attn_scale"] == whole["choice"]["attn_scale"]


def test_a_larger_grid_another_history_and_fewer_tokens_do_not_ask_the_teacher_again(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(Options.read(options(output_path=str(tmp_path))))
    monkeypatch.setattr(teacher, "ask", None)
    journal = tmp_path / "cache" / "signals.0.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines()
    larger = calibrate(Options.read(options(output_path=str(tmp_path), temperatures="0.7,0.8,0.9,1.0"))).as_json()
    added = [json.loads(line)["record"] for line in journal.read_text(encoding="utf-8").splitlines()[len(lines) :]]
    assert [len(record["points"]) for record in added] == [3] * 4
    assert len(larger["grid"]["temperatures"]) == 4
    for changed in ({"history": "teacher"}, {"num_tokens": 2}):
        fresh = calibrate(Options.read(options(cache_path=str(tmp_path / "cache"), **changed))).as_json()
        monkeypatch.undo()
        expected = calibrate(Options.read(options(**changed))).as_json()
        monkeypatch.setattr(teacher, "ask", None)
        assert fresh["grid"]["mean_kl"] == pytest.approx(expected["grid"]["mean_kl"], abs=1e-12)


def test_damaged_teachers_and_records_are_told_and_computed_again(
    options: MakeOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = calibrate(Options.read(options(output_path=str(tmp_path)))).as_json()
    journal, teachers = tmp_path / "cache" / "signals.0.jsonl", sorted((tmp_path / "cache" / "teacher").iterdir())
    whole = [path.read_bytes() for path in teachers]
    # Cut off, a bit of a distribution, a bit of the header, and another prompt's teacher.
    damages = [whole[0][:100], flipped(whole[1], -9), flipped(whole[2], 40), whole[0]]
    for path, content in zip(teachers, damages, strict=True):
        path.write_bytes(content)
    journal.write_bytes(b"".join(flipped(line, 150) + b"\n" for line in journal.read_bytes().splitlines()))
    again = calibrate(Options.read(options(output_path=str(tmp_path)))).as_json()
    assert again["samples"] == first["samples"]
    assert all(f"{path} is left aside and the teacher is asked again" in caplog.text for path in teachers)
    assert f"{journal}: 4 records are damaged" in caplog.text
    assert [path.read_bytes() for path in teachers] == whole


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 4
    return bytes(changed)


def test_multiple_choice_tasks_give_each_prompt_once(options: MakeOptions, toy_tasks: str) -> None:
    toys = {"tasks": "toy_calibration,toy_test", "include_path": toy_tasks, "limit": 2}
    found = calibrate(Options.read(options(**toys))).as_json()
    places = [(sample["task"], sample["doc_id"], sample["number"]) for sample in found["samples"]]
    assert places == [("toy_calibration", 0, 0), ("toy_calibration", 1, 0), ("toy_test", 0, 0), ("toy_test", 1, 0)]
    assert [task["version"] for task in found["tasks"]] == ["2.0", "2.0"]


def test_documents_can_be_picked_by_number(options: MakeOptions, toy_tasks: str) -> None:
    toys = {"tasks": "toy_calibration", "include_path": toy_tasks, "limit": None}
    whole = calibrate(Options.read(options(**toys))).as_json()
    picked = calibrate(Options.read(options(**toys, samples={"toy_calibration": [4, 1]}))).as_json()
    assert [sample["kl"] for sample in picked["samples"]] == [whole["samples"][index]["kl"] for index in (1, 4)]


def test_test_tasks_are_measured_without_labels(options: MakeOptions, toy_tasks: str) -> None:
    toys = {"tasks": "toy_calibration", "include_path": toy_tasks, "test_tasks": "toy_test"}
    found = calibrate(Options.read(options(**toys))).as_json()
    alone = calibrate(Options.read(options(tasks="toy_test", include_path=toy_tasks, limit=None))).as_json()
    rows = {row["name"]: row for row in found["test"]["rows"]}
    means = {tuple(point): mean for point, mean in zip(alone["grid"]["points"], alone["grid"]["mean_kl"], strict=True)}
    for row in rows.values():
        assert row["mean_kl"] == pytest.approx(means[tuple(row["point"])], abs=1e-12)
        more = row["mean_kl"] - rows["chosen"]["mean_kl"]
        assert row["more_kl_than_chosen"]["mean"] == pytest.approx(more, abs=1e-12)
        assert row["score"] is None


def test_the_chat_template_reaches_the_prompts(options: MakeOptions) -> None:
    plain = calibrate(Options.read(options())).as_json()
    chat = calibrate(Options.read(options(apply_chat_template=True, system_instruction="Be brief."))).as_json()
    assert chat["samples"][0]["tokens"] > plain["samples"][0]["tokens"]
    assert chat["tasks"][0]["prompts_sha256"] != plain["tasks"][0]["prompts_sha256"]
    assert chat["tasks"][0]["documents_sha256"] == plain["tasks"][0]["documents_sha256"]


def test_own_tasks_are_found_without_indexing_the_harnesses(
    options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Catalogue, "_index", _without_defaults(Catalogue._index))
    assert calibrate(Options.read(options())).as_json()["samples"]


def _without_defaults(index: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: Catalogue, include_defaults: bool) -> Any:
        assert not include_defaults
        return index(self, include_defaults)

    return guarded


def test_a_configuration_file_is_read_and_flags_win_over_it(flags: Flags, options: MakeOptions, tmp_path: Path) -> None:
    file = tmp_path / "calibration.yaml"
    file.write_text(yaml.safe_dump({**options(), "temperatures": [0.8, 0.9]}), encoding="utf-8")
    flag = ["--model_args", "chunk_tokens=20", "--num_tokens", "1", "--output_path", str(tmp_path / "out")]
    assert main(["calibrate", "--config", str(file), *flag]) == 0
    found = calibration_file.read(tmp_path / "out").as_json()
    assert found["grid"]["temperatures"] == [0.8, 0.9]
    assert found["settings"]["chunk_tokens"] == 20
    assert found["objective"]["num_tokens"] == 1


def test_samples_longer_than_the_window_are_skipped_and_counted_or_an_error(
    options: MakeOptions, capsys: pytest.CaptureFixture[str], flags: Flags
) -> None:
    whole = calibrate(Options.read(options())).as_json()
    lengths = [sample["tokens"] for sample in whole["samples"]]
    window = {"max_length": sorted(lengths)[1] + 3}
    found = calibrate(Options.read(options(window))).as_json()
    assert found["left_out"] == {"too_long": 2, "no_context": 0}
    assert [sample["tokens"] for sample in found["samples"]] == [
        length for length in lengths if length in sorted(lengths)[:2]
    ]
    assert main(["calibrate", *flags(window, on_too_long="error")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"do not fit into the model's window of {window['max_length']}" in error
    assert main(["calibrate", *flags({"max_length": 20})]) == 2
    assert "No sample is left" in capsys.readouterr().err


def test_prompts_without_a_context_are_counted_or_an_error(flags: Flags, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *flags({"context_field": "passage"})]) == 2
    assert "no context to encode in parallel was found" in capsys.readouterr().err
    assert main(["calibrate", *flags({"context_field": "passage", "no_context": "sequential"})]) == 2
    assert "4 have no context" in capsys.readouterr().err


def test_with_a_retriever_the_teacher_reads_what_it_keeps_however_long_the_document_is(options: MakeOptions) -> None:
    passages = {"chunking": "passages", "chunk_tokens": None, "max_chunks": 1}
    retrieval = {**passages, "retriever": "bm25"}
    # One chunk at T = S = 1 is the sequential model on the same tokens.
    point = {"temperatures": "1.0", "scales": "1.0", "num_tokens": 1}
    whole, kept = (calibrate(Options.read(options(model, **point))).as_json() for model in (passages, retrieval))
    assert kept["choice"]["mean_kl"] == pytest.approx(0, abs=1e-9)
    assert kept["settings"]["retriever"] == "bm25"
    least = min(sample["tokens"] for sample in whole["samples"])
    window = {"max_length": max(sample["tokens"] for sample in kept["samples"]) + 1}
    assert window["max_length"] < least
    again = calibrate(Options.read(options({**retrieval, **window}, **point))).as_json()
    assert again["left_out"] == {"too_long": 0, "no_context": 0}
    assert again["samples"] == kept["samples"]
    with pytest.raises(ApeError, match="4 are longer than the model's window"):
        calibrate(Options.read(options({**passages, **window}, **point)))
