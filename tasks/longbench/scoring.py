"""A model's response to a LongBench doc -> its scores, for the harness's `process_results`."""

import math
from collections.abc import Callable
from typing import Any

from lm_eval_ape.tasks.longbench import metrics
from lm_eval_ape.tasks.longbench.catalogue import DATASETS, LongBenchDataset, Metric

LENGTH_GROUPS = ("score_0_4k", "score_4_8k", "score_8k_up")

SECOND_ROUGE: dict[Metric, Callable[[str, str], float]] = {
    "rouge_l": metrics.rouge_score_l,
    "rouge_l_zh": metrics.rouge_score_l_zh,
}
"""The other package's ROUGE-L, by the official metric that it stands beside."""

SUBSTRING: dict[Metric, Callable[[str, str], float]] = {
    "qa_f1": metrics.sub_em,
    "qa_f1_zh": metrics.sub_em_zh,
}
"""Substring exact match, by the official metric that it stands beside."""

_METRICS: dict[Metric, Callable[[str, str], float]] = {
    "qa_f1": metrics.qa_f1,
    "qa_f1_zh": metrics.qa_f1_zh,
    "rouge_l": metrics.rouge_l,
    "rouge_l_zh": metrics.rouge_l_zh,
    "retrieval": metrics.retrieval,
    "retrieval_zh": metrics.retrieval_zh,
    "count": metrics.count,
    "code_similarity": metrics.code_similarity,
}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float | None]:
    """Scores one response, in [0, 1]; the best of the reference answers counts.

    Args:
        doc: A row, as `load_longbench` gives it.
        results: The response, alone in its list.

    Returns:
        `score`, the official score; for ROUGE tasks also `rouge_score_l`, the other package's
        ROUGE-L; for tasks scored by F1 of words also `sub_em`; for LongBench-E also `score` again
        under the name of the row's length group, and None under the names of the others.
    """
    name = doc["dataset"].removesuffix("_e")
    dataset = DATASETS[name]
    prediction = official_prediction(results[0], dataset)
    answers = doc["answers"]
    score = official_score(prediction, answers, doc["all_classes"], dataset)
    scores: dict[str, float | None] = {"score": score}
    if dataset.metric in SECOND_ROUGE:
        second = SECOND_ROUGE[dataset.metric]
        scores["rouge_score_l"] = max(second(prediction, answer) for answer in answers)
    if dataset.metric in SUBSTRING:
        contains = SUBSTRING[dataset.metric]
        scores["sub_em"] = max(contains(prediction, answer) for answer in answers)
    if doc["dataset"] != name:
        scores |= dict.fromkeys(LENGTH_GROUPS) | {length_group(doc["length"]): score}
    return scores


def mean_of_group(scores: list[float | None]) -> float:
    """Aggregates one length group's scores, which are None for the rows outside it.

    Not a number if no row is in the group, as with a small `--limit`.
    """
    present = [score for score in scores if score is not None]
    return sum(present) / len(present) if present else math.nan


def official_prediction(response: str, dataset: LongBenchDataset) -> str:
    """Returns what the official scorer keeps of a response: all of it, or its first line.

    Leading line breaks do not count as lines; a first line of spaces does.
    """
    return response.lstrip("\n").split("\n")[0] if dataset.first_line else response


def official_score(prediction: str, answers: list[str], classes: list[str], dataset: LongBenchDataset) -> float:
    """Returns the dataset's metric against the best of the answers, in [0, 1].

    `classes`, the names of all classes, matters to the classification metric only.
    """
    if dataset.metric == "classification":
        return max(metrics.classification(prediction, answer, classes) for answer in answers)
    metric = _METRICS[dataset.metric]
    return max(metric(prediction, answer) for answer in answers)


def length_group(length: int) -> str:
    """Returns LongBench-E's group of a row, by its length in words (code and English)."""
    return LENGTH_GROUPS[(length >= 4000) + (length >= 8000)]
