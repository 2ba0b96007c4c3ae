"""Metrics that some rows have no value of, as RULER's, of which there is one a length; metrics that are no means."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers import harness
from lm_eval_ape.artefacts.board_file import read
from lm_eval_ape.cli import main
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.loggers import Loggers
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.running import Strategies
from lm_eval_ape.errors import ApeError

Make = Callable[..., dict[str, Any]]
STRATEGIES = ["sequential", "parallel", "ape[attn_temperature=0.5,attn_scale=0.7]"]
LENGTHS = {4096: harness.documents(5, passages=2, words=2), 8192: harness.documents(3, passages=6, words=24)}
# As in the harness's RULER: the first length is -1 in rows of others, which are missing in its rows.
HELPER = """
import json, pathlib, datasets
def load(**_):
    rows = json.loads(pathlib.Path(__file__).with_name("rows.json").read_text())
    return {"test": datasets.Dataset.from_list(rows)}
def scores(doc, results):
    return {"4096": -1.0} | {str(doc["max_length"]): len(results[0]) % 5 / 4}
def bare(doc, results):
    return {str(doc["max_length"]): len(results[0]) % 5 / 4}
def mean(values):
    kept = [value for value in values if value != -1]
    return sum(kept) / len(kept) if kept else -1
def geometric(values):
    return (values[0] * values[-1]) ** 0.5
"""


def metric(name: str, aggregation: str = "!function helper.mean") -> str:
    return f"- {{metric: '{name}', aggregation: {aggregation}, higher_is_better: true}}\n"


@pytest.fixture(scope="module")
def ruler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toy_ruler` and `toy_bare` with two of three lengths, `toy_long` with one, and tasks of other metrics."""
    folder = tmp_path_factory.mktemp("ruler")
    rows = [{**doc, "max_length": length} for length, docs in LENGTHS.items() for doc in docs]
    # In turn, so that no length comes first in all.
    (folder / "rows.json").write_text(json.dumps(rows[::2] + rows[1::2]), encoding="utf-8")
    (folder / "helper.py").write_text(HELPER, encoding="utf-8")
    config = harness.task("", "generate_until", [])
    shared = {name: config[name] for name in ("test_split", "doc_to_text", "doc_to_target", "generation_kwargs")}
    head = yaml.safe_dump({**shared, "output_type": "generate_until"}) + "custom_dataset: !function helper.load\n"
    head += "process_results: !function helper.scores\n"
    lengths = [metric(str(length)) for length in (4096, 8192, 16384)]
    long = head + "process_docs: !function helper.long\n"
    with (folder / "helper.py").open("a", encoding="utf-8") as file:
        file.write('def long(docs):\n    return docs.filter(lambda doc: doc["max_length"] == 8192)\n')
    tasks = {
        "toy_ruler": head + "metric_list:\n" + "".join(lengths),
        "toy_long": long + "metric_list:\n" + "".join(lengths),
        "toy_bare": head.replace("helper.scores", "helper.bare") + "metric_list:\n" + "".join(lengths),
        "toy_second": long + "metric_list:\n" + metric("4096", "!function helper.geometric") + lengths[1],
        "toy_none": head + "metric_list:\n" + metric("4096", "median") + metric("8192", "perplexity"),
    }
    for name, text in tasks.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{text}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def asked(options: Make, ruler: Path) -> Make:
    """Options of a comparison on these tasks."""
    return lambda **given: options(**{"include_path": [str(ruler)], "tasks": "toy_ruler", **given})


@pytest.fixture(scope="module")
def compared(asked: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison on `toy_ruler`."""
    folder = tmp_path_factory.mktemp("board")
    compare(Options.read(asked(output_path=str(folder))))
    return folder


def from_samples(folder: Path, label: str, task: str = "toy_ruler") -> dict[int, list[float]]:
    """The scores of each length in a strategy's samples file."""
    (place,) = (path.parent for path in folder.glob("*/run.json") if json.loads(path.read_text())["label"] == label)
    (file,) = place.rglob(f"samples_{task}_*.jsonl")
    found: dict[int, list[float]] = {}
    for line in map(json.loads, file.read_text().splitlines()):
        length = line["doc"]["max_length"]
        found.setdefault(length, []).append(line[str(length)])
    return found


def test_lengths_that_share_a_task_are_joined_and_shown_by_length(compared: Path) -> None:
    board = read(compared / "board.json").as_json()
    fact = board["tasks"]["toy_ruler"]
    assert (fact["metric"], fact["higher_is_better"], fact["documents"]) == ("4096+8192", True, 8)
    assert board["notes"] == []
    assert [bucket["documents"] for bucket in board["lengths"]["buckets"]] == [5, 3]
    baseline = None
    for row in board["rows"]:
        lengths = from_samples(compared, row["label"])
        scores = lengths[4096] + lengths[8192]
        baseline = baseline or scores
        found = row["tasks"]["toy_ruler"]
        assert found["left_out"] == 0
        assert found["score"] == pytest.approx(np.mean(scores))
        if row["label"] != "sequential":
            assert found["difference"]["mean"] == pytest.approx(np.mean(scores) - np.mean(baseline))
        short, long = (bucket["mean"] for bucket in board["lengths"]["rows"][row["label"]])
        assert (short, long) == pytest.approx((np.mean(lengths[4096]), np.mean(lengths[8192])))
        assert found["reported"]["8192,none"] == pytest.approx(long)
    assert [row["label"] for row in board["rows"]] == STRATEGIES
    assert len({row["tasks"]["toy_ruler"]["score"] for row in board["rows"]}) > 1


@pytest.mark.parametrize(("length", "others"), [(4096, 3), (8192, 5)])
def test_one_length_is_compared_on_its_own_rows(asked: Make, compared: Path, length: int, others: int) -> None:
    board = compare(Options.read(asked(output_path=str(compared), metric=str(length)))).as_json()
    assert board is not None
    assert board["tasks"]["toy_ruler"]["metric"] == str(length)
    assert board["tasks"]["toy_ruler"]["documents"] == len(board["samples"]["toy_ruler"]) == 8 - others
    counted = ", ".join(f"{others} of {label}" for label in STRATEGIES)
    assert board["notes"] == [f"toy_ruler: rows without a value of {length} are left out: {counted}."]
    for row in board["rows"]:
        found = row["tasks"]["toy_ruler"]
        assert found["left_out"] == others
        assert found["score"] == pytest.approx(np.mean(from_samples(compared, row["label"])[length]))


def test_boards_of_finished_runs_and_their_reports_know_the_lengths_too(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Path(shutil.copytree(compared, tmp_path / "runs"))
    again = compare(
        Options.read({"sources": [str(runs)], "output_path": str(tmp_path / "board"), "resamples": "199"})
    ).as_json()
    assert again is not None
    assert again["tasks"]["toy_ruler"]["metric"] == "4096+8192"
    assert [row["label"] for row in again["rows"]] == STRATEGIES
    assert "4096+8192" in (tmp_path / "board" / "board.md").read_text()
    assert main(["report", str(tmp_path / "board")]) == 0
    assert "4096+8192" in (tmp_path / "board" / "report.html").read_text()
    with pytest.raises(ApeError, match=r"No row of toy_ruler in .* has a value of 16384"):
        compare(Options.read({"sources": [str(runs)], "metric": "16384", "resamples": "199"}))


def test_a_task_of_one_length_is_compared_on_it(asked: Make, tmp_path: Path) -> None:
    given = asked(tasks="toy_long", strategies="sequential,parallel", output_path=str(tmp_path))
    board = compare(Options.read(given)).as_json()
    assert board is not None
    assert (board["tasks"]["toy_long"]["metric"], board["tasks"]["toy_long"]["documents"]) == ("8192", 3)
    assert board["notes"] == []
    with pytest.raises(ApeError, match=r"No row of toy_long in .* has a value of 4096: .* are: 4096, 8192, 16384"):
        compare(Options.read({**given, "metric": "4096"}))


def test_rows_may_have_one_metric_alone(asked: Make, compared: Path, tmp_path: Path) -> None:
    given = asked(tasks="toy_bare", strategies="sequential,parallel", output_path=str(tmp_path))
    board = compare(Options.read(given)).as_json()
    assert board is not None
    assert (board["tasks"]["toy_bare"]["metric"], board["tasks"]["toy_bare"]["documents"]) == ("4096+8192", 8)
    for row in board["rows"]:
        lengths = from_samples(compared, row["label"])
        assert row["tasks"]["toy_bare"]["score"] == pytest.approx(np.mean(lengths[4096] + lengths[8192]))


def test_strategies_that_are_not_scored_need_no_mean(asked: Make, tmp_path: Path) -> None:
    given = Options.read(asked(tasks="toy_none", output_path=str(tmp_path)))
    assert list(Strategies(given, Loggers(given), scored=False).tasks) == ["toy_none"]


def test_a_first_metric_that_is_no_mean_gives_way_to_one_that_is(
    asked: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = asked(tasks="toy_second", strategies="sequential,parallel", output_path=str(tmp_path))
    board = compare(Options.read(given)).as_json()
    assert board is not None
    assert board["tasks"]["toy_second"]["metric"] == "8192"
    assert board["notes"] == ["toy_second is compared on 8192: 4096 is no mean over documents."]
    assert "toy_second is compared on 8192: 4096 is no mean over documents." in caplog.text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"tasks": "toy_second", "metric": "4096"},
            "The metric 4096 of toy_second is no mean over documents.*; name one of 8192 with",
        ),
        (
            {"tasks": "toy_none", "metric": "8192"},
            "The metric 8192 of toy_none is no mean over documents.*; no other one of it is",
        ),
        (
            {"tasks": "toy_none"},
            r"No metric of toy_none is a mean over documents \(it has: 4096, 8192\).*; leave the task",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_before_any_weight_is_loaded(
    asked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], sentence: str
) -> None:
    monkeypatch.setattr(MeasuredApeHFLM, "__init__", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ApeError, match=sentence):
        compare(Options.read(asked(output_path=str(tmp_path), **change)))
