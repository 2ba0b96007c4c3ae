"""Boards of existing runs: of other models, of other documents, and of files that are not as they should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import harness
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError

RunHF = Callable[..., Path]
DOCS = harness.documents(12, words=3)


def board(*folders: Path, **given: Any) -> dict[str, Any]:
    found = compare(
        Options.read({"sources": [str(folder) for folder in folders], "resamples": "199", **given})
    ).as_json()
    assert found is not None
    return found


def row(found: dict[str, Any], label: str) -> dict[str, Any]:
    return dict(next(row for row in found["rows"] if row["label"] == label))


def hf_label(found: dict[str, Any]) -> str:
    return next(str(row["label"]) for row in found["rows"] if row["settings"] is None)


def edit(run: Path, tmp_path: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """A copy of a run with other lines in its samples file."""
    folder = Path(shutil.copytree(run, tmp_path / "edited"))
    (samples,) = folder.rglob("samples_*.jsonl")
    samples.write_text("".join(change(samples.read_text().splitlines(keepends=True))))
    return folder


def test_hf_and_sequential_are_the_same_document_by_document(finished: Path, hf_run: Path) -> None:
    found = board(hf_run, finished / "sequential")
    difference = row(found, hf_label(found))["tasks"]["toy_choice"]["difference"]
    assert (difference["mean"], difference["p_value"], difference["within_noise"]) == (0, 1, True)
    assert row(found, hf_label(found))["costs"] is None
    assert found["baseline"] == "sequential"
    assert found["notes"] == [
        f"toy_answer was not run by {hf_label(found)}; averages are over the tasks that all rows have."
    ]
    assert row(found, "sequential")["average"]["tasks"] == ["toy_choice"]
    for sample in found["samples"]["toy_choice"]:
        assert len({run["prediction"] for run in sample["runs"].values()}) == 1
        assert sample["length"] > 0


def test_a_board_of_finished_strategies_is_the_board_of_their_run(finished: Path) -> None:
    again = board(finished)
    before = json.loads((finished / "board.json").read_text())
    by_label = {row["label"]: row for row in before["rows"]}
    assert list(by_label) == [row["label"] for row in again["rows"]]
    for entry in again["rows"]:
        assert entry["tasks"] == by_label[entry["label"]]["tasks"]
        assert entry["costs"] == by_label[entry["label"]]["costs"]


def test_without_a_baseline_the_board_asks_for_one(finished: Path, hf_run: Path) -> None:
    found = board(hf_run, finished / "parallel")
    assert found["baseline"] is None
    assert found["notes"][0].startswith("No differences: they need a baseline.")
    assert all(task["difference"] is None for entry in found["rows"] for task in entry["tasks"].values())
    named = board(hf_run, finished / "parallel", baseline=hf_label(found))
    assert row(named, "parallel")["tasks"]["toy_choice"]["difference"] is not None
    with pytest.raises(ApeError, match="There is no row 'hff' to be the baseline; there are"):
        board(hf_run, finished / "parallel", baseline="hff")


def test_rows_without_counterpart_are_counted_and_left_out_for_all(
    finished: Path, run_hf: RunHF, tmp_path: Path
) -> None:
    # The same documents in another order, without two, and with two that nobody else has.
    other = harness.documents(14, words=3)
    docs = [*reversed(DOCS[2:]), *other[12:]]
    run_hf(tmp_path / "hf", docs)
    found = board(tmp_path / "hf", finished / "sequential")
    label = hf_label(found)
    assert found["tasks"]["toy_choice"]["documents"] == 10
    assert row(found, label)["tasks"]["toy_choice"]["left_out"] == 2
    expected = "toy_choice: scored on the 10 documents that all rows have; left out are 2 of sequential, 2 of " + label
    assert f"{expected}." in found["notes"]
    assert row(found, label)["tasks"]["toy_choice"]["difference"]["mean"] == 0
    assert row(found, "sequential")["tasks"]["toy_choice"]["score"] == row(found, label)["tasks"]["toy_choice"]["score"]


def test_documents_that_are_the_same_to_the_letter_are_paired_in_their_order(run_hf: RunHF, tmp_path: Path) -> None:
    docs = [*DOCS[:6], *DOCS[:3]]
    run_hf(tmp_path / "one", docs)
    run_hf(tmp_path / "two", docs)
    found = board(tmp_path / "one", tmp_path / "two")
    assert found["tasks"]["toy_choice"]["documents"] == 9
    assert "toy_choice: 3 rows repeat a document; equal ones are paired in their order." in found["notes"]


def test_a_document_that_one_run_has_more_often_is_counted_and_left_out(run_hf: RunHF, tmp_path: Path) -> None:
    run_hf(tmp_path / "twice", [*DOCS[:6], *DOCS[:3]])
    run_hf(tmp_path / "once", DOCS[:6])
    found = board(tmp_path / "twice", tmp_path / "once")
    assert found["tasks"]["toy_choice"]["documents"] == 6
    twice, once = (entry["label"] for entry in found["rows"])
    assert any(note.endswith(f"left out are 3 of {twice}.") for note in found["notes"])
    assert {len(sample["runs"]) for sample in found["samples"]["toy_choice"]} == {2}
    assert once.endswith("(once)")


def test_other_prompts_and_versions_of_a_task_are_said(hf_run: Path, run_hf: RunHF, tmp_path: Path) -> None:
    run_hf(tmp_path / "other", description="Be brief. ", metadata={"version": 3.0})
    notes = board(hf_run, tmp_path / "other")["notes"]
    assert any("read 12 of 12 documents in another prompt" in note for note in notes)
    assert any("has version 3.0 of the task" in note for note in notes)


def test_the_newest_of_equal_runs_counts_and_a_different_one_is_a_row(run_hf: RunHF, tmp_path: Path) -> None:
    run_hf(tmp_path / "runs")
    newest = run_hf(tmp_path / "runs")
    found = board(tmp_path / "runs")
    assert [entry["results_file"] for entry in found["rows"]] == [str(newest)]
    shutil.copytree(tmp_path / "runs", tmp_path / "more")
    found = board(tmp_path / "runs", tmp_path / "more")
    labels = [entry["label"] for entry in found["rows"]]
    assert [label.split(" (")[1] for label in labels] == ["runs)", "more)"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: lines[:-2], "holds 10 rows, but the run evaluated 12 documents of toy_choice"),
        (lambda lines: [*lines[:-1], lines[-1][:50]], "Line 12 of"),
        (lambda lines: [*lines, *lines[:3]], "holds 15 rows, but the run evaluated 12 documents"),
        (lambda lines: [*lines[:-1], lines[0]], "does not hold the rows that toy_choice was run on"),
        (lambda lines: [line.replace("doc_hash", "hash") for line in lines], "has no 'doc_hash'"),
        (lambda lines: [], "holds no sample"),
        (lambda lines: [line.replace('"acc": 0.0', '"acc": 1.0') for line in lines], "the mean over its samples is"),
    ],
)
def test_damaged_samples_are_a_sentence(
    hf_run: Path, tmp_path: Path, change: Callable[[list[str]], list[str]], sentence: str
) -> None:
    with pytest.raises(ApeError) as error:
        board(edit(hf_run, tmp_path, change))
    assert sentence in str(error.value)


def test_another_tasks_rows_are_refused(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished / "sequential", tmp_path / "mixed"))
    (answer,), (choice,) = (list(folder.rglob(f"samples_{name}_*.jsonl")) for name in ("toy_answer", "toy_choice"))
    shutil.copy(answer, choice)
    with pytest.raises(ApeError, match="of another run or task"):
        board(folder)


def test_runs_without_a_task_or_document_in_common_cannot_be_compared(
    hf_run: Path, run_hf: RunHF, tmp_path: Path
) -> None:
    run_hf(tmp_path / "other", harness.documents(5, passages=2, words=2))
    with pytest.raises(ApeError, match="no task with documents in common"):
        board(hf_run, tmp_path / "other")
    run_hf(tmp_path / "renamed", task="toy_other")
    with pytest.raises(ApeError, match="no task with documents in common"):
        board(hf_run, tmp_path / "renamed")


def test_runs_without_samples_and_files_of_others_are_a_sentence(hf_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hf_run, tmp_path / "run"))
    next(folder.rglob("samples_*")).unlink()
    with pytest.raises(ApeError, match="run it again with --log_samples"):
        board(folder)
    (tmp_path / "results_x.json").write_text("[1]")
    with pytest.raises(ApeError, match="the file must be object"):
        board(tmp_path / "results_x.json")
    with pytest.raises(ApeError, match="There is no run in"):
        board(tmp_path / "nothing")


def test_a_metric_that_is_no_mean_of_numbers_is_refused(hf_run: Path, run_hf: RunHF, tmp_path: Path) -> None:
    with pytest.raises(ApeError, match=r"toy_choice of .* has no metric f1; it has: acc"):
        board(hf_run, metric="f1")
    run_hf(
        tmp_path,
        output_type="loglikelihood_rolling",
        doc_to_target=harness.PROMPT,
        doc_to_text="",
        metric_list=[{"metric": "word_perplexity"}],
    )
    with pytest.raises(ApeError, match="where a number is needed; name another one with --metric"):
        board(tmp_path)


def test_finished_runs_and_new_strategies_share_a_board(
    options: Callable[..., dict[str, Any]], hf_run: Path, board_folder: Path
) -> None:
    given = options(output_path=str(board_folder), strategies="sequential,parallel", sources=[str(hf_run)])
    found = compare(Options.read(given)).as_json()
    assert found is not None
    assert [entry["label"] for entry in found["rows"]][:2] == ["sequential", "parallel"]
    assert row(found, hf_label(found))["tasks"]["toy_choice"]["difference"]["mean"] == 0
