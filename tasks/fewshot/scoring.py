"""A response to a few-shot row -> its score, for the harness's `process_results`."""

from typing import Any


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores one response.

    Args:
        doc: A row, as `load_fewshot` gives it.
        results: The response, alone in its list.

    Returns:
        `accuracy`: 1 where the response's first line is the label, but for case, white space and a last full stop.
    """
    first = results[0].strip().split("\n")[0]
    return {"accuracy": float(_plain(first) == _plain(doc["answers"][0]))}


def _plain(label: str) -> str:
    return " ".join(label.casefold().split()).removesuffix(".").rstrip()
