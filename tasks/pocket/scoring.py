"""A response to a pocket row -> its scores, for the harness's `process_results`."""

from typing import Any

from lm_eval_ape.tasks.longbench.metrics import qa_f1, sub_em


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores one response, in [0, 1].

    Args:
        doc: A row, as `load_pocket` gives it.
        results: The response, alone in its list.

    Returns:
        `score`, LongBench's QA F1, `accuracy`, 1 where the response is an answer to the letter, and `sub_em`, 1 where
        it contains an answer.
    """
    response = results[0].strip()
    return {
        "score": max(qa_f1(response, answer) for answer in doc["answers"]),
        "accuracy": float(response in doc["answers"]),
        "sub_em": max(sub_em(response, answer) for answer in doc["answers"]),
    }
