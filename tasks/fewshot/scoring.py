"""A response to a few-shot row -> its score, for the harness's `process_results`."""

from typing import Any


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores one response.

    Args:
        doc: A row, as `load_fewshot` gives it.
        results: The response, alone in its list.

    Returns:
        `accuracy`: 1 where the response's first line is the label, but for case, white space and a last full stop.
        `shown_label`: 1 where it is any label of the demonstrations. What is lost here is which labels there are; what
            `accuracy` loses beyond it is the choice among them.
    """
    first = _plain(results[0].strip().split("\n")[0])
    return {
        "accuracy": float(first == _plain(doc["answers"][0])),
        "shown_label": float(first in map(_plain, doc["labels"])),
    }


def _plain(label: str) -> str:
    return " ".join(label.casefold().split()).removesuffix(".").rstrip()
