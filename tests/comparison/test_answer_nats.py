"""How likely the reference answers are: as the harness scores them, paired, kept, and never left out unsaid."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, MultipleChoiceTask, Task
from scipy import stats

from helpers import harness
from lm_eval_ape.artefacts import board_file
from lm_eval_ape.comparison import running
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.tables import tables
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.catalogue import Catalogue
from lm_eval_ape.harness.reference_answers import ScoredAnswers, reference_pairs, score_answers, without_answers
from lm_eval_ape.report.page import report

Make = Callable[..., dict[str, Any]]
DOCS = harness.documents(12, words=3)
LABELS = ("sequential", "parallel", "ape[attn_temperature=0.5,attn_scale=0.7]")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many evaluations and how many scored continuations a command costs."""
    counts = {"runs": 0, "answers": 0}
    evaluate, score = running.simple_evaluate, MeasuredApeHFLM.loglikelihood

    def count_run(**given: Any) -> Any:
        counts["runs"] += 1
        return evaluate(**given)

    def count_answers(self: MeasuredApeHFLM, requests: list[Instance], disable_tqdm: bool = False) -> Any:
        counts["answers"] += len(requests)
        return score(self, requests, disable_tqdm)

    monkeypatch.setattr(running, "simple_evaluate", count_run)
    monkeypatch.setattr(MeasuredApeHFLM, "loglikelihood", count_answers)
    return counts


def board_with_nats(options: Make, folder: Path, **given: Any) -> dict[str, Any]:
    board = compare(Options.read(options(output_path=str(folder), answer_nats=True, **given)))
    assert board is not None
    return board.as_json()


def answers_of(board: dict[str, Any], task: str, label: str) -> list[dict[str, Any]]:
    return [sample["runs"][label]["answer_nats"] for sample in board["samples"][task]]


def nats_of(board: dict[str, Any], task: str, label: str) -> list[float]:
    return [found["nats"] for found in answers_of(board, task, label)]


def choices_of(folder: Path, label: str) -> list[list[float]]:
    """What a run of `toy_choice` gave each choice of each document, read from the harness's own samples."""
    place = next(path.parent for path in folder.glob("*/run.json") if json.loads(path.read_text())["label"] == label)
    (file,) = place.rglob("samples_toy_choice_*.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        [float(likelihood) for ((likelihood, _),) in line["resps"]] for line in sorted(lines, key=lambda x: x["doc_id"])
    ]


def with_tasks(toy_tasks: Path, folder: Path, **configs: dict[str, Any]) -> str:
    """A copy of the small tasks, their configurations changed, and further ones."""
    place = Path(shutil.copytree(toy_tasks, folder / "tasks"))
    for name, changes in configs.items():
        config = harness.task(name, changes.pop("kind", "generate_until"), [])
        config.pop("custom_dataset")
        text = "custom_dataset: !function data.load\n" + yaml.safe_dump({**config, **changes})
        (place / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(place)


# What is scored


def test_sequential_gives_the_reference_answer_what_the_harnesss_hf_gives_it(
    options: Make, board_folder: Path, checkpoint: str
) -> None:
    board = board_with_nats(options, board_folder)
    scored = harness.task("toy", "generate_until", DOCS, doc_to_target=" {{choices[answer]}}", metric_list=None)
    scored |= {"output_type": "loglikelihood", "metric_list": [{"metric": "acc"}]}
    scored.pop("generation_kwargs")
    expected = [
        float(likelihood)
        for (((likelihood, _),),) in harness.responses(
            harness.evaluate("hf", {"pretrained": checkpoint}, scored), "toy"
        )
    ]
    for task in ("toy_answer", "toy_choice"):
        assert nats_of(board, task, "sequential") == pytest.approx(expected, abs=1e-9)
    said = [f" {doc['choices'][doc['answer']]}" for doc in DOCS]
    assert [found["answer"] for found in answers_of(board, "toy_answer", "sequential")] == said


def test_a_tokens_count_is_that_of_what_is_scored(options: Make, board_folder: Path, checkpoint: str) -> None:
    board = board_with_nats(options, board_folder, strategies="sequential")
    lm = ApeHFLM(checkpoint, dtype="float64", device="cpu")
    for doc, found in zip(DOCS, answers_of(board, "toy_answer", "sequential"), strict=True):
        prompt = harness.PROMPT.replace("{{context}}", doc["context"]).replace("{{question}}", doc["question"])
        both = lm.tokenizer(prompt + found["answer"])["input_ids"]
        assert found["tokens"] == len(both) - len(lm.tokenizer(prompt)["input_ids"])
    assert lm.scored_tokens("", "film") == len(lm.tokenizer("film", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("begun", [None, "It is", "It is\n"])
@pytest.mark.parametrize("chat", [False, True])
def test_answers_follow_a_prompt_as_the_harness_lets_choices_follow_it(
    options: Make, toy_tasks: Path, tmp_path: Path, chat: bool, begun: str | None
) -> None:
    """What the gold choice has in the harness's own samples: with a template, and where the answer has begun."""
    tasks = with_tasks(
        toy_tasks,
        tmp_path,
        toy_answer={"gen_prefix": begun},
        toy_choice={"kind": "multiple_choice", "gen_prefix": begun},
    )
    given = {"include_path": [tasks], "apply_chat_template": chat, "limit": 4}
    board = board_with_nats(options, tmp_path / "board", **given)
    for label in LABELS:
        gold = [own[doc["answer"]] for own, doc in zip(choices_of(tmp_path / "board", label), DOCS, strict=False)]
        assert len(gold) == 4
        for task in ("toy_answer", "toy_choice"):
            assert nats_of(board, task, label) == pytest.approx(gold, abs=1e-9)
    assert nats_of(board, "toy_answer", "sequential") != pytest.approx(
        nats_of(board, "toy_answer", "parallel"), abs=1e-3
    )


def test_one_chunk_at_the_usual_temperature_and_scale_is_the_sequential_model(options: Make, tmp_path: Path) -> None:
    given = {"strategies": "sequential,parallel[max_chunks=1],recompute[max_chunks=1]", "limit": 4}
    board = board_with_nats(options, tmp_path / "board", **given)
    sequential, *others = (nats_of(board, "toy_answer", row["label"]) for row in board["rows"])
    for found in others:
        assert found == pytest.approx(sequential, abs=1e-9)


def test_of_several_answers_the_likeliest_under_each_strategy_counts(
    options: Make, toy_tasks: Path, tmp_path: Path
) -> None:
    tasks = with_tasks(toy_tasks, tmp_path, toy_several={"doc_to_target": "choices", "repeats": 1})
    board = board_with_nats(options, tmp_path / "board", tasks="toy_several,toy_choice", include_path=[tasks])
    best = {}
    for label in LABELS:
        likelihoods = np.array(choices_of(tmp_path / "board", label))
        assert nats_of(board, "toy_several", label) == pytest.approx(likelihoods.max(1), abs=1e-9)
        best[label] = likelihoods.argmax(1)
        said = [f" {doc['choices'][number]}" for doc, number in zip(DOCS, best[label], strict=True)]
        assert [found["answer"] for found in answers_of(board, "toy_several", label)] == said
    assert len(set(best["sequential"])) > 1
    assert any((best["sequential"] != other).any() for other in best.values())


# What the board says


def test_the_boards_means_and_paired_differences_are_numpys_and_scipys(options: Make, board_folder: Path) -> None:
    board = board_with_nats(options, board_folder)
    for task in ("toy_answer", "toy_choice"):
        base, *others = (np.array(nats_of(board, task, label)) for label in LABELS)
        for row, own in zip(board["rows"], (base, *others), strict=True):
            found = row["tasks"][task]["answer_nats"]
            assert found["mean"] == pytest.approx(own.mean())
            assert found["stderr"] == pytest.approx(own.std(ddof=1) / math.sqrt(12))
            assert found["documents"] == 12
            assert found["tokens"] == pytest.approx(
                np.mean([one["tokens"] for one in answers_of(board, task, row["label"])])
            )
        assert board["rows"][0]["tasks"][task]["answer_nats"]["difference"] is None
        for row, own in zip(board["rows"][1:], others, strict=True):
            found = row["tasks"][task]["answer_nats"]["difference"]
            expected = stats.bootstrap(
                (own, base),
                lambda a, b, axis: (a - b).mean(axis=axis),
                paired=True,
                method="percentile",
                n_resamples=199,
                random_state=np.random.default_rng(1234),
            ).confidence_interval
            assert found["mean"] == pytest.approx((own - base).mean())
            assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    average = board["rows"][1]["average"]["answer_nats"]
    own = [row["answer_nats"] for row in board["rows"][1]["tasks"].values()]
    assert average["mean"] == pytest.approx(np.mean([one["mean"] for one in own]))
    assert average["difference"]["mean"] == pytest.approx(np.mean([one["difference"]["mean"] for one in own]))
    assert average["documents"] == 24


def test_the_board_shows_them_everywhere(options: Make, board_folder: Path) -> None:
    board_with_nats(options, board_folder)
    board = board_file.read(board_folder / "board.json")
    table = tables(board)[1]
    assert table.title == "Reference answers"
    assert [row[1] for row in table.rows] == list(LABELS) * 3
    found = board.rows[1].tasks["toy_answer"].answer_nats
    assert found is not None
    assert found.difference is not None
    change = found.difference
    line = next(row for row in table.rows[3:] if row[1] == "parallel")
    assert line[2:6] == ["12", f"{found.tokens:.1f}", f"{found.mean:.4f}", f"± {found.stderr:.4f}"]
    assert line[6:8] == [f"{change.mean:+.4f}", f"[{change.low:+.4f}, {change.high:+.4f}]"]
    assert line[9] == ("≈" if change.within_noise else "▲" if change.mean > 0 else "▼")
    assert "### Reference answers" in (board_folder / "board.md").read_text(encoding="utf-8")
    header, *lines = (board_folder / "board.csv").read_text(encoding="utf-8").splitlines()
    cells = dict(
        zip(header.split(","), next(x for x in lines if x.startswith("toy_answer,parallel")).split(","), strict=True)
    )
    assert float(cells["answer_nats"]) == found.mean
    assert float(cells["answer_nats_difference"]) == change.mean
    assert float(cells["answer_nats_low"]) == change.low
    assert float(cells["answer_tokens"]) == found.tokens
    page = report([str(board_folder)]).read_text(encoding="utf-8")
    assert "Reference answers" in page
    assert f"{change.mean:+.4f}" in page


def test_without_a_baseline_there_are_means_alone(options: Make, tmp_path: Path) -> None:
    board = compare(
        Options.read(options(output_path=str(tmp_path), answer_nats=True, strategies="parallel,ape", limit=3))
    )
    assert board is not None
    assert all(score.answer_nats and score.answer_nats.difference is None for row in board.rows for score in row.scores)
    assert tables(board)[1].headers[-1] == "Stderr"


def test_a_board_and_a_run_from_before_have_none(finished: Path) -> None:
    board = board_file.read(Path(__file__).parents[1] / "hostile" / "valid" / "board.json")
    assert [score.answer_nats for row in board.rows for score in row.scores] == [None] * 4
    found = compare(Options.read({"sources": [str(finished)], "resamples": 199}))
    assert found is not None
    assert [table.title for table in tables(found)][:2] == ["Scores", "Costs"]
    assert not any("nats" in note for note in found.notes)


# What is kept


def test_asking_later_scores_answers_alone_and_asking_again_nothing(
    options: Make, board_folder: Path, work: dict[str, int]
) -> None:
    before = json.loads((board_folder / "parallel" / "run.json").read_text())
    board = board_with_nats(options, board_folder)
    assert work == {"runs": 0, "answers": 72}
    assert json.loads((board_folder / "parallel" / "run.json").read_text()) == before
    assert board_with_nats(options, board_folder)["samples"] == board["samples"]
    assert work == {"runs": 0, "answers": 72}
    unasked = compare(Options.read({"sources": [str(board_folder)], "resamples": 199}))
    assert unasked is not None
    assert unasked.as_json()["samples"] == board["samples"]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_killed_comparison_goes_on_and_ends_alike(
    options: Make, tmp_path: Path, work: dict[str, int], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    given = {"strategies": "sequential,parallel", "tasks": "toy_answer", "batch_size": batch_size}
    whole = board_with_nats(options, tmp_path / "whole", **given)
    work["answers"] = 0
    score = MeasuredApeHFLM.loglikelihood

    def stop(self: MeasuredApeHFLM, requests: list[Instance], disable_tqdm: bool = False) -> Any:
        if work["answers"] >= 5:
            raise KeyboardInterrupt
        return score(self, requests, disable_tqdm)

    with monkeypatch.context() as patch:
        patch.setattr(MeasuredApeHFLM, "loglikelihood", stop)
        with pytest.raises(KeyboardInterrupt):
            board_with_nats(options, tmp_path / "killed", **given)
    assert work["answers"] == 5
    board = board_with_nats(options, tmp_path / "killed", **given)
    assert work["answers"] == 24
    for label in LABELS[:2]:
        assert answers_of(board, "toy_answer", label) == answers_of(whole, "toy_answer", label)


def test_a_damaged_file_is_made_again(options: Make, board_folder: Path, work: dict[str, int]) -> None:
    board_with_nats(options, board_folder)
    (board_folder / "parallel" / "answer_nats.json").write_text("{")
    shutil.rmtree(board_folder / "cache")
    work["answers"] = 0
    board_with_nats(options, board_folder)
    # As any damaged file of a run, it makes that run suspect.
    assert work == {"runs": 1, "answers": 36 + 24}


def test_answers_of_another_run_or_prompt_are_not_shown(options: Make, board_folder: Path) -> None:
    board_with_nats(options, board_folder)
    file = board_folder / "parallel" / "answer_nats.json"
    content = json.loads(file.read_text())
    content["samples"][0]["prompt_sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    found = compare(Options.read({"sources": [str(board_folder)], "resamples": 199}))
    assert found is not None
    # All rows are compared on the same documents.
    means = [score for row in found.rows if (score := row.tasks["toy_answer"].answer_nats)]
    assert [mean.documents for mean in means] == [11, 11, 11]
    assert "toy_answer: the nats of the answers are over 11 of 12 documents." in found.notes
    content["identity"] = {}
    file.write_text(json.dumps(content))
    other = compare(Options.read({"sources": [str(board_folder)], "resamples": 199}))
    assert other is not None
    assert [bool(row.tasks["toy_answer"].answer_nats) for row in other.rows] == [True, False, True]


# Where there is no answer


def test_what_has_no_reference_answer_is_passed_over_and_listed(
    options: Make, toy_tasks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = "{% if answer %}{{choices[answer]}}{% endif %}"
    tasks = with_tasks(toy_tasks, tmp_path, toy_some={"doc_to_target": some}, toy_none={"doc_to_target": 0})
    given = {"tasks": "toy_some,toy_none", "include_path": [tasks], "strategies": "sequential,parallel"}
    with caplog.at_level(logging.WARNING):
        board = board_with_nats(options, tmp_path / "board", **given)
    assert "toy_none: no document has a reference answer to score." in caplog.text
    assert "toy_none has no reference answers, so there are no nats of any." in board["notes"]
    told = "toy_some: the nats of the answers are over 8 of 12 documents (4 have no reference answer)."
    assert told in board["notes"]
    row = board["rows"][1]
    assert row["tasks"]["toy_some"]["answer_nats"]["documents"] == 8
    assert row["tasks"]["toy_none"]["answer_nats"] is row["average"]["answer_nats"] is None
    found = [sample["runs"]["parallel"]["answer_nats"] for sample in board["samples"]["toy_some"]]
    assert [one is None for one in found] == [doc["answer"] == 0 for doc in DOCS]


def test_tasks_without_any_are_refused_before_the_model_is_loaded(
    options: Make, toy_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MeasuredApeHFLM, "__init__", lambda *_, **__: pytest.fail("loaded"))
    # The harness's metric of whole texts is no mean, which is told first.
    monkeypatch.setattr(running, "_no_means", lambda *_: {})
    folder = with_tasks(toy_tasks, tmp_path, toy_none={"doc_to_target": ""}, toy_text={"kind": "loglikelihood_rolling"})
    given = {"output_path": str(tmp_path / "out"), "answer_nats": True, "include_path": [folder]}
    with pytest.raises(ApeError, match="there is none of toy_none, toy_text: a task that scores whole texts"):
        compare(Options.read(options(**given, tasks="toy_none,toy_text")))


def test_nothing_is_scored_where_nothing_is_run(finished: Path) -> None:
    with pytest.raises(ApeError, match="answer_nats says how to run strategies, but no model is named"):
        Options.read({"sources": [str(finished)], "answer_nats": True})


# What a task's reference answers are

PROMPT = "Which?"


def pairs(kind: str, doc: dict[str, Any], chat: bool = False, **config: Any) -> list[str]:
    """The answers of one document, as they follow its prompt."""
    shared = {"doc_to_text": PROMPT, "num_fewshot": 0}
    task = ConfigurableTask(config={**harness.task("toy", kind, [doc]), **shared, **config})
    task.build_all_requests(limit=None, rank=0, world_size=1)
    found = reference_pairs(task, task.instances, chat=chat)
    assert {prompt for prompt, _ in found} <= {PROMPT} or "doc_to_choice" in config
    assert bool(found) == (not without_answers({"toy": task}, None))
    return [answer for _, answer in found]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("Rome", [" Rome"]),
        (["Rome", "Roma", "Rome"], [" Rome", " Roma"]),
        (["", " \n", "Rome"], [" Rome"]),
        ([], []),
        ("", []),
        ("  ", []),
        (None, []),
        (7, [" 7"]),
        (2.5, [" 2.5"]),
        ([7, 8], [" 7", " 8"]),
        ([["Rome", "Oslo"]], []),
        ({"text": "Rome"}, []),
        ("['Rome', 'Roma']", [" ['Rome', 'Roma']"]),
        ("罗马", [" 罗马"]),
    ],
)
def test_a_target_is_text_or_texts_that_say_something(target: Any, expected: list[str]) -> None:
    assert pairs("generate_until", {"target": "x"}, doc_to_target=lambda _: target) == expected


def test_targets_of_templates_numbers_and_choices_are_what_the_harness_takes_them_for() -> None:
    doc = {"names": ["Rome", "Oslo"], "right": 1, "letter": "Oslo"}
    choices = {"doc_to_choice": "names"}
    assert pairs("generate_until", doc, doc_to_target="{{names}}") == [" Rome", " Oslo"]
    assert pairs("generate_until", doc, doc_to_target="right") == [" 1"]
    assert pairs("generate_until", doc, doc_to_target="right", **choices) == [" Oslo"]
    assert pairs("generate_until", doc, doc_to_target="{{right}}", **choices) == [" Oslo"]
    assert pairs("generate_until", doc, doc_to_target="letter", **choices) == [" Oslo"]
    # A number that stands in the configuration itself is there because the harness wants something there.
    assert pairs("generate_until", doc, doc_to_target=0) == []
    assert pairs("generate_until", doc, doc_to_target=0, **choices) == [" Rome"]


def test_the_delimiter_is_the_tasks_own_and_none_after_a_template() -> None:
    doc = {"target": "Rome"}
    given: dict[str, Any] = {"doc_to_target": "target", "target_delimiter": "\n"}
    assert pairs("generate_until", doc, **given) == ["\nRome"]
    assert pairs("generate_until", doc, chat=True, **given) == ["Rome"]
    # As choices of the harness follow an answer that has begun.
    task = ConfigurableTask(
        config={**harness.task("toy", "generate_until", [doc]), "doc_to_text": PROMPT, **given, "gen_prefix": "It is"}
    )
    task.build_all_requests(limit=None, rank=0, world_size=1)
    assert [answer for _, answer in reference_pairs(task, task.instances, chat=True)] == ["\nRome"]


@pytest.mark.parametrize(
    ("gold", "expected"),
    [(1, [" Oslo"]), ("Oslo", [" Oslo"]), ([0, 1], [" Rome", " Oslo"]), (-1, []), ("Bern", []), (None, [])],
)
def test_the_right_choices_are_those_that_there_are(gold: Any, expected: list[str]) -> None:
    config: dict[str, Any] = {"doc_to_choice": ["Rome", "Oslo"], "doc_to_target": lambda _: gold}
    assert pairs("multiple_choice", {"x": 0}, **config) == expected
    mutual = [{"metric": "acc"}, {"metric": "acc_mutual_info"}]
    assert pairs("multiple_choice", {"x": 0}, **config, metric_list=mutual) == expected


@pytest.mark.parametrize("kind", ["generate_until", "multiple_choice"])
def test_a_choice_that_a_later_document_does_not_have_is_none(kind: str) -> None:
    docs = [{"gold": gold} for gold in (1, 2, 0)]
    config = {"doc_to_text": PROMPT, "doc_to_choice": ["Rome", "Oslo"], "doc_to_target": "gold", "num_fewshot": 0}
    task = ConfigurableTask(config={**harness.task("toy", kind, docs), **config})
    task.build_all_requests(limit=None, rank=0, world_size=1)
    own = [[request for request in task.instances if request.doc_id == number] for number in range(3)]
    found = [reference_pairs(task, requests, chat=False) for requests in own]
    assert found == [[(PROMPT, " Oslo")], [], [(PROMPT, " Rome")]]


def test_choices_in_the_prompt_have_one_continuation_after_the_right_one() -> None:
    doc = {"right": 1, "end": "is in Norway."}
    config = harness.task("toy", "multiple_choice", [doc], doc_to_text="right", doc_to_target="end")
    task = ConfigurableTask(config={**config, "doc_to_choice": ["Rome", "Oslo"], "num_fewshot": 0})
    task.build_all_requests(limit=None, rank=0, world_size=1)
    assert reference_pairs(task, task.instances, chat=False) == [("Oslo", " is in Norway.")]


def test_a_task_of_older_days_has_the_choice_that_is_its_target() -> None:
    doc = {"choices": ["Rome", "Oslo"], "gold": 1}
    methods = dict.fromkeys(MultipleChoiceTask.__abstractmethods__)
    task = type("Older", (MultipleChoiceTask,), {**methods, "__init__": Task.__init__, "download": lambda *_: None})()
    requests = task.construct_requests(doc, PROMPT, metadata=("toy", 0, 1))
    assert reference_pairs(task, requests, chat=False) == [(PROMPT, " Oslo")]


@pytest.mark.parametrize(
    "name", ["ape_pocket_twohop_test", "ape_pocket_classify_test", "ape_needle_test", "ape_keyvalue_test"]
)
def test_our_own_tasks_have_reference_answers(name: str) -> None:
    metadata = {"needle_words": 60, "needle_count": 2, "keyvalue_pairs": 6}
    options = Options.read(
        {"model_args": "pretrained=pocket", "tasks": name, "output_path": "out", "metadata": metadata}
    )
    task = Catalogue(options).load([name])[name]
    assert without_answers({name: task}, 2) == []
    task.build_all_requests(limit=1, rank=0, world_size=1)
    (doc,) = [doc for _, doc in task.doc_iterator(limit=1)]
    # Needles that are asked for together are one answer.
    assert [answer for _, answer in reference_pairs(task, task.instances, chat=False)] == [
        f" {', '.join(doc['answers'])}"
    ]


# From Python


def test_the_models_present_settings_are_scored_on_the_documents_that_were_picked(
    options: Make, finished: Path
) -> None:
    read = Options.read(options(output_path="out"))
    tasks = Catalogue(read).load(["toy_answer"])
    lm = ApeHFLM(**{**read.model_args, "device": "cpu", "strategy": "parallel"})
    found = score_answers(lm, tasks, read, cache=None, picked={"toy_answer": [2, 7]})
    whole = choices_of(finished, "parallel")
    assert [one.doc_id for one in found.answers] == [2, 7]
    gold = [whole[number][DOCS[number]["answer"]] for number in (2, 7)]
    assert [one.nats for one in found.answers] == pytest.approx(gold, abs=1e-9)
    assert score_answers(lm, tasks, read, cache=None, limit=2).answers[1].doc_id == 1
    with lm.under(lm.settings.with_(strategy="sequential")):
        (other,) = score_answers(lm, tasks, read, cache=None, picked={"toy_answer": [7]}).answers
    assert other.nats == pytest.approx(choices_of(finished, "sequential")[7][DOCS[7]["answer"]], abs=1e-9)


def test_nothing_to_score_is_no_answer(options: Make, toy_tasks: Path, tmp_path: Path) -> None:
    folder = with_tasks(toy_tasks, tmp_path, toy_none={"doc_to_target": ""})
    read = Options.read(options(output_path="out", tasks="toy_none", include_path=[folder]))
    lm = ApeHFLM(**{**read.model_args, "device": "cpu"})
    found = score_answers(lm, Catalogue(read).load(["toy_none"]), read, cache=tmp_path / "cache")
    assert found == ScoredAnswers([], {}, ["toy_none"])
