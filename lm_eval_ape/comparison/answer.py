"""What a board answers, in sentences: which encoding is closest, what it costs, and whether scores can tell."""

from __future__ import annotations

from lm_eval_ape.artefacts.board import Board, Difference, Row, Score
from lm_eval_ape.comparison.tables import shown


def answer(board: Board) -> str:
    """Which row is closest to the sequential model, or which lose beyond doubt where no divergence was measured.

    Args:
        board: With a baseline; without one, and without another row, there is nothing to say.

    Returns:
        One to three sentences on the tasks that all rows have; empty where there is nothing to say.
    """
    found = [(row, score) for row in board.rows if (score := _overall(row)) and row.label != board.baseline]
    base = next((row for row in board.rows if row.label == board.baseline), None)
    alike = len({tuple(sorted(row.tasks)) for row in board.rows}) == 1
    if base is None or not alike or len(found) < len(board.rows) - 1:
        return ""
    measured = [(score.kl.mean, row, score) for row, score in found if score.kl]
    sentences = []
    if measured:
        least, row, score = min(measured, key=lambda one: one[0])
        cost = _cost(row, base)
        error = "" if score.kl is None or score.kl.stderr is None else f" ± {score.kl.stderr:.2g}"
        sentences.append(f"{row.label} is closest to the sequential model, KL {least:.3g}{error} nats{cost}.")
        sentences += _told(board, row.label, score.difference)
    lost = [row.label for row, score in found if score.difference and _worse(board, score.difference)]
    if lost:
        sentences.append(f"{_listed(lost)} {'is' if len(lost) == 1 else 'are'} worse than {base.label} beyond noise.")
    elif not measured and any(score.difference for _, score in found):
        sentences.append(f"{_documents(board)} cannot tell any score from that of {base.label}.")
    return " ".join(sentences)


def _overall(row: Row) -> Score | None:
    """The mean over tasks, or the only task's score."""
    if row.average and len(row.average.tasks) > 1:
        return row.average
    return next(iter(row.tasks.values())) if len(row.tasks) == 1 else None


def _higher(board: Board) -> bool:
    return next(iter(board.tasks.values())).higher_is_better


def _worse(board: Board, found: Difference) -> bool:
    return not found.within_noise and (found.mean < 0) == _higher(board)


def _told(board: Board, label: str, found: Difference | None) -> list[str]:
    """Whether the score of the closest row differs from the baseline's beyond noise."""
    if found is None or found.low is None or found.high is None:
        return []
    higher = _higher(board)
    mean, low, high = (shown(value, higher, "+") for value in (found.mean, found.low, found.high))
    differs = f"Its score differs from that of {board.baseline} by {mean} [{low}, {high}]"
    if found.within_noise:
        return [f"{differs}, which {_documents(board)} cannot tell from nothing."]
    # What is worse beyond noise is said of all such rows.
    return [f"{differs}, beyond noise."]


def _cost(row: Row, base: Row) -> str:
    """The time to the first new token beside the sequential model's, where that is the baseline."""
    costs = [one.costs.prefill_seconds.median for one in (row, base) if one.costs and one.costs.prefill_seconds]
    if not base.sequential or len(costs) < 2 or row.device != base.device or not costs[1]:
        return ""
    return f", at {costs[0] / costs[1]:.2f} times its time to the first new token"


def _documents(board: Board) -> str:
    count = sum(task.documents for task in board.tasks.values())
    return f"{count} document{'' if count == 1 else 's'}"


def _listed(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
