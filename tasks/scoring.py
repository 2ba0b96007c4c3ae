"""A response to a row with short answers -> its scores, for the harness's `process_results`."""

from typing import Any

from lm_eval_ape.tasks.longbench.metrics import sub_em


def find_answers(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores a response that must name all of a row's answers, in [0, 1].

    Args:
        doc: A row with `answers`, different things that are asked for.
        results: The response, alone in its list.

    Returns:
        `sub_em`, the share of the answers that the response contains (see `metrics.sub_em`), and `exact_match`, 1 where
        its first line is the answers to the letter, in their order and separated by commas.
    """
    answers = doc["answers"]
    first = results[0].strip().split("\n")[0].strip().strip('"')
    return {
        "sub_em": sum(sub_em(results[0], answer) for answer in answers) / len(answers),
        "exact_match": float(first == ", ".join(answers)),
    }
