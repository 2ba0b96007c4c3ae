"""The metrics give the scores worked out by hand in `metric_cases.json`."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.tasks.longbench import metrics

CASES = json.loads(Path(__file__).with_name("metric_cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['metric']}-{case['prediction']}")
def test_a_metric_gives_the_score_worked_out_by_hand(case: dict[str, Any]) -> None:
    classes = [case["classes"]] if "classes" in case else []
    metric = getattr(metrics, case["metric"])
    score = metric(case["prediction"], case["answer"], *classes)
    assert score == pytest.approx(case["score"], abs=1e-6)


def test_rouge_l_of_a_sentence_longer_than_the_recursion_limit_is_a_score() -> None:
    limit = sys.getrecursionlimit()
    text = " ".join(f"word{number}" for number in range(limit + 100))
    assert metrics.rouge_l(text, "word1 word2") > 0
    assert sys.getrecursionlimit() == limit


def test_an_answer_without_a_paragraph_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="must contain 'Paragraph ' and a number, but got 'x'"):
        metrics.retrieval("Paragraph 1", "x")
