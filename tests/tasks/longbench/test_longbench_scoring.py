"""What the harness gets for one response."""

import math
from typing import Any

import pytest

from lm_eval_ape.tasks.longbench.catalogue import DATASETS
from lm_eval_ape.tasks.longbench.scoring import mean_of_group, official_prediction, process_results


def doc(dataset: str, *answers: str, **fields: Any) -> dict[str, Any]:
    return {"dataset": dataset, "answers": list(answers), "all_classes": [], "length": 1, **fields}


def test_the_best_answer_counts() -> None:
    assert process_results(doc("2wikimqa", "London", "Paris"), ["Paris"]) == {"score": 1.0, "sub_em": 1.0}


def test_tasks_scored_by_f1_give_substring_exact_match_beside_it() -> None:
    assert process_results(doc("hotpotqa", "Paris", "Rome"), ["It is Rome"]) == {"score": 0.5, "sub_em": 1.0}
    assert process_results(doc("multifieldqa_zh", "厦门大学"), ["在厦门大学举办"]) == {"score": 0.5, "sub_em": 1.0}
    # Of tasks that keep the first line, that line.
    assert process_results(doc("triviaqa", "Paris"), ["Rome\nParis"]) == {"score": 0.0, "sub_em": 0.0}
    with_it = {name for name in DATASETS if "sub_em" in process_results(doc(name, "Paragraph 1 段落1"), ["x"])}
    assert with_it == {name for name, dataset in DATASETS.items() if dataset.metric in ("qa_f1", "qa_f1_zh")}


def test_rouge_tasks_give_both_packages_rouge_l() -> None:
    scores = process_results(doc("gov_report", "the cat"), ["the the the cat"])
    assert scores == pytest.approx({"score": 1.0, "rouge_score_l": 2 / 3}, abs=1e-6)


def test_an_empty_response_scores_zero_everywhere() -> None:
    for name, dataset in DATASETS.items():
        answer = "Paragraph 1" if dataset.metric == "retrieval" else "段落1"
        scores = process_results(doc(name, answer, all_classes=["段落1"]), [""])
        assert set(scores.values()) == {0.0}, name


@pytest.mark.parametrize(
    ("response", "kept"),
    [("\n\nParis\nLondon", "Paris"), ("Paris", "Paris"), (" \nParis", " "), ("", "")],
)
def test_few_shot_tasks_keep_the_first_line(response: str, kept: str) -> None:
    few_shot = [name for name in DATASETS if DATASETS[name].first_line]
    assert few_shot == ["trec", "triviaqa", "samsum", "lsht"]
    assert all(official_prediction(response, DATASETS[name]) == kept for name in few_shot)


def test_other_tasks_keep_the_whole_response() -> None:
    assert official_prediction("\nParis\nLondon ", DATASETS["2wikimqa"]) == "\nParis\nLondon "


@pytest.mark.parametrize(
    ("length", "group"),
    [(3999, "score_0_4k"), (4000, "score_4_8k"), (7999, "score_4_8k"), (8000, "score_8k_up")],
)
def test_longbench_e_scores_by_length(length: int, group: str) -> None:
    scores = process_results(doc("2wikimqa_e", "Paris", length=length), ["Paris"])
    groups = {"score_0_4k": None, "score_4_8k": None, "score_8k_up": None}
    assert scores == {"score": 1.0, "sub_em": 1.0, **groups, group: 1.0}


def test_a_length_group_is_the_mean_of_its_own_rows() -> None:
    assert mean_of_group([None, 1.0, None, 0.5]) == 0.75
    assert math.isnan(mean_of_group([None]))
