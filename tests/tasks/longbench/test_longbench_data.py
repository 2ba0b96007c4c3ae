"""Rows come from a local folder or the hub's archive, in one schema, or an error says why not."""

import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.longbench.data import FEATURES, load_longbench

MakeRow = Callable[[str, int], dict[str, Any]]


def write(folder: Path, *rows: dict[str, Any], name: str = "2wikimqa") -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def load(folder: str, name: str = "2wikimqa", **options: Any) -> list[dict[str, Any]]:
    return list(load_longbench(longbench_dataset=name, longbench_dir=folder, **options)["test"])


def test_a_doc_is_the_official_row_and_its_number(tmp_path: Path, official_row: MakeRow) -> None:
    row = official_row("2wikimqa", 7)
    (doc,) = load(write(tmp_path, row))
    assert doc == {**row, "all_classes": [], "row": 0}
    assert set(doc) == set(FEATURES)


def test_the_question_may_be_called_question(tmp_path: Path, official_row: MakeRow) -> None:
    row = official_row("2wikimqa", 7)
    question = row.pop("input")
    (doc,) = load(write(tmp_path, {**row, "question": question}))
    assert doc["input"] == question
    assert set(doc) == set(FEATURES)


def test_the_parts_keep_the_row_numbers(small_longbench: Path) -> None:
    folder = str(small_longbench)
    calibration = load(folder, longbench_part="calibration")
    test = load(folder, longbench_part="test")
    assert len(calibration) == 32
    assert sorted(doc["row"] for doc in calibration + test) == list(range(40))
    assert all(doc["_id"] == f"2wikimqa-id-{doc['row']}" for doc in calibration + test)


def test_metadata_of_other_tasks_and_models_is_passed_over(tmp_path: Path, official_row: MakeRow) -> None:
    folder = write(tmp_path, official_row("2wikimqa", 0))
    assert load(folder, pretrained="x", version=1.0, max_seq_lengths=[4096])


def test_a_partial_file_is_warned_about(
    tmp_path: Path, official_row: MakeRow, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(write(tmp_path, official_row("2wikimqa", 0)))
    assert "2wikimqa.jsonl has 1 rows, LongBench's 2wikimqa has 200" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": None}, "line 2: the field `context` is None. Expected a string"),
        ({"context": ""}, "line 2: the field `context` is ''. Expected a string that is not"),
        ({"answers": "Paris"}, "line 2: the field `answers` is 'Paris'. Expected a list"),
        ({"length": "12"}, "line 2: the field `length` is '12'. Expected a whole number"),
        ({"_id": "2wikimqa-id-0"}, "line 2: the `_id` '2wikimqa-id-0' stands on line 1 too"),
    ],
)
def test_a_malformed_row_is_an_error_with_its_place(
    tmp_path: Path, official_row: MakeRow, change: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path, official_row("2wikimqa", 0), official_row("2wikimqa", 1) | change)
    with pytest.raises(ApeError, match=rf"2wikimqa\.jsonl, {message}"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "named"),
    [("context", "`context`"), ("input", "`input` or `question`"), ("answers", "`answers`")],
)
def test_a_missing_field_is_named(tmp_path: Path, official_row: MakeRow, field: str, named: str) -> None:
    row = official_row("2wikimqa", 0)
    del row[field]
    with pytest.raises(ApeError, match=f"line 1: the field {named} is missing; the row has"):
        load(write(tmp_path, row))


def test_a_classification_row_needs_its_classes(tmp_path: Path, official_row: MakeRow) -> None:
    row = official_row("trec", 0) | {"all_classes": None}
    with pytest.raises(ApeError, match=r"line 1: the field `all_classes` is None\. Expected a list"):
        load(write(tmp_path, row, name="trec"), "trec")


def test_a_context_with_the_prompt_filled_in_is_an_error(tmp_path: Path, official_row: MakeRow) -> None:
    row = official_row("vcsum", 0)
    row["context"] = "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n" + row["context"]
    with pytest.raises(ApeError, match="line 1: the context starts with the prompt's instruction"):
        load(write(tmp_path, row, name="vcsum"), "vcsum")


def test_a_small_file_has_no_parts(tmp_path: Path, official_row: MakeRow) -> None:
    folder = write(tmp_path, official_row("2wikimqa", 0))
    with pytest.raises(ApeError, match=r"2wikimqa\.jsonl has 1 rows, but its test part needs more"):
        load(folder, longbench_part="test")


def test_a_missing_folder_or_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ApeError, match="nowhere does not exist"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ApeError, match=r"has no file 2wikimqa\.jsonl"):
        load(str(tmp_path))


@pytest.mark.parametrize("folder", ["", 3, True])
def test_a_folder_that_is_no_path_is_an_error(folder: Any) -> None:
    with pytest.raises(ApeError, match=f"must be the path of a folder, but got {folder!r}"):
        load(folder)


def test_a_misspelt_option_is_an_error() -> None:
    with pytest.raises(ApeError, match="Unknown metadata longbench_folder: the only option"):
        load_longbench(longbench_dataset="2wikimqa", longbench_folder="/data")


@pytest.mark.parametrize("name", ["hotpot", "musique_e"])
def test_an_unknown_dataset_is_an_error(name: str) -> None:
    with pytest.raises(ApeError, match=f"LongBench has no dataset '{name}'"):
        load_longbench(longbench_dataset=name)


def test_without_a_folder_the_official_archive_is_read(
    tmp_path: Path, small_longbench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.write(small_longbench / "lcc_e.jsonl", "data/lcc_e.jsonl")
    asked = []

    def download(repository: str, file: str, *, repo_type: str) -> str:
        asked.append((repository, file, repo_type))
        return str(archive)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    docs = load_longbench(longbench_dataset="lcc_e")["test"]
    assert list(docs) == load(str(small_longbench), "lcc_e")
    assert asked == [("zai-org/LongBench", "data.zip", "dataset")]


def test_a_hub_out_of_reach_is_an_error_that_names_the_local_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ApeError, match=r"could not be loaded .*\(offline\).*longbench_dir"):
        load_longbench(longbench_dataset="lcc")
