"""KL and score against the share of tokens recomputed, beside those of as many tokens chosen at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval_ape.artefacts.board import Board, Difference, Row, Score
from lm_eval_ape.comparison.statistics import Estimate
from lm_eval_ape.comparison.tables import BETTER, NOISE, WORSE, ScorePart, score_parts, shown
from lm_eval_ape.report.board_figures import NORMAL_95, Panel, by_recomputed_share
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.recomputation import (
    NOTHING,
    RANDOM,
    RESAMPLES,
    Line,
    amount,
    difference,
    kl_of,
    lines,
    score_of,
    seed,
    share,
)
from lm_eval_ape.report.section import Drawn, Figures, Section

_TEXTS = ("Row", "Task", "Selector")


def build(material: Material, figures: Figures) -> Section | None:
    """A part for each board with rows that recompute."""
    parts = [
        _part(number, found, drawn, figures)
        for number, found in enumerate(material.boards, start=1)
        if (drawn := lines(found.content))
    ]
    return Section("recomputation", "Recomputation", {"parts": parts}) if parts else None


def _part(number: int, found: Found[Board], drawn: Sequence[Line], figures: Figures) -> dict[str, Any]:
    board = found.content
    cells = [row for part in score_parts(board) for row in _cells(board, part, drawn)]
    headers = [header for header in (cells[0] if cells else ()) if any(row[header] for row in cells)]
    return {
        "name": found.name,
        "figures": _figures(number, board, drawn, figures),
        "sentences": list(_sentences(drawn)),
        "headers": headers,
        "rows": [[row[header] for header in headers] for row in cells],
        "texts": sum(header in headers for header in _TEXTS),
        "resamples": min(board.statistics.resamples, RESAMPLES),
    }


def _figures(number: int, board: Board, drawn: Sequence[Line], figures: Figures) -> list[Drawn]:
    """KL and score, a panel for each task and for their average."""
    parts = score_parts(board)
    quantities = {
        "kl": ("KL from the sequential model", [_kl_panel(board, part) for part in parts]),
        "score": ("score", [_score_panel(board, part) for part in parts]),
    }
    rows = "; ".join(f"{line.name}: {', '.join(_placed(row, line) for row in line.rows)}" for line in drawn)
    labels = {row.label for line in drawn for row in line.rows}
    return [
        figures.add(
            f"recomputation_{name}_{number}",
            by_recomputed_share(drawn, filled),
            alt=f"Mean {what} against the share of tokens recomputed. {rows}. The numbers are in the table below.",
            caption=f"Mean {what} against the mean share of the context's tokens that is recomputed. A line joins rows "
            "that differ only in how many tokens they recompute; through points of several seeds it goes at their "
            "mean. Bars are 95% intervals, 1.96 standard errors to each side.",
        )
        for name, (what, panels) in quantities.items()
        if (filled := [panel for panel in panels if labels & panel.values.keys()])
    ]


def _kl_panel(board: Board, part: ScorePart) -> Panel:
    values = {
        row.label: Estimate(score.kl.mean, score.kl.stderr)
        for row, score in zip(board.rows, part.scores, strict=True)
        if score and score.kl
    }
    return Panel(part.name, "mean KL from the sequential model (nats)", values)


def _score_panel(board: Board, part: ScorePart) -> Panel:
    factor = 100 if part.higher_is_better else 1
    values = {
        row.label: Estimate(factor * score.score, None if score.stderr is None else factor * score.stderr)
        for row, score in zip(board.rows, part.scores, strict=True)
        if score
    }
    unit = " x100" if part.higher_is_better else ""
    return Panel(part.name, f"{part.metric or 'score'}{unit}", values)


def _placed(row: Row, line: Line) -> str:
    """A row's name as a point of a figure."""
    drawn_with = f" (seed {seed(row)})" if line.selector == RANDOM else ""
    return f"{row.label}{drawn_with} at {_share(row)}"


def _share(row: Row) -> str:
    found = share(row)
    return f"{amount(row):g} tokens" if found is None else f"{found:.1%}"


def _sentences(drawn: Sequence[Line]) -> Iterator[str]:
    """What a reader must know of what the figures do not show."""
    chosen = [(line, row) for line in drawn if line.selector not in (NOTHING, RANDOM) for row in line.rows]
    if missing := [row.label for line, row in chosen if not line.controls_of(row)]:
        yield (
            f"The control is missing for {', '.join(missing)}: no row recomputes as many tokens chosen at random "
            "(recompute_by=random), so it is not known whether it matters which tokens are recomputed."
        )
    if unplaced := [row.label for line in drawn for row in line.rows if share(row) is None]:
        yield (
            f"{', '.join(unplaced)}: not in the figures, because only a number of tokens is known of what they "
            "recompute, and no share; lm-eval-ape compare measures it where it runs a strategy itself."
        )


def _cells(board: Board, part: ScorePart, drawn: Sequence[Line]) -> Iterator[dict[str, str]]:
    """The table's lines of a task or the average, by header; a cell is empty where there is nothing to say."""
    scores = {row.label: score for row, score in zip(board.rows, part.scores, strict=True)}
    several = len(board.tasks) > 1
    for line in drawn:
        for row in line.rows:
            if (score := scores[row.label]) is None:
                continue
            controls = line.controls_of(row)
            kl, change = (
                difference(board, part.tasks, row, controls, value) if controls else None for value in (kl_of, score_of)
            )
            yield {
                "Row": row.label,
                "Task": part.name if several else "",
                "Selector": f"{line.name}, seed {seed(row)}" if line.selector == RANDOM else line.name,
                "Recomputed": _share(row),
                "KL (nats)": _kl(score),
                "KL less random's": _change(kl, higher=False),
                "Score": _score(score, part.higher_is_better),
                "Score less random's": _change(change, part.higher_is_better),
                **_prefill(board, row),
            }


def _kl(score: Score) -> str:
    if score.kl is None:
        return ""
    mean, half = score.kl.mean, NORMAL_95 * (score.kl.stderr or 0)
    return f"{mean:.3g}" + ("" if score.kl.stderr is None else f" [{mean - half:.3g}, {mean + half:.3g}]")


def _score(score: Score, higher: bool) -> str:
    if score.stderr is None:
        return shown(score.score, higher)
    low, high = (score.score + side * NORMAL_95 * score.stderr for side in (-1, 1))
    return f"{shown(score.score, higher)} [{shown(low, higher)}, {shown(high, higher)}]"


def _change(found: Difference | None, higher: bool) -> str:
    """A difference with its interval and verdict."""
    if found is None:
        return ""
    ends = "" if found.low is None else f" [{shown(found.low, higher, '+')}, {shown(found.high, higher, '+')}]"
    mark = NOISE if found.within_noise else BETTER if (found.mean > 0) == higher else WORSE
    return f"{shown(found.mean, higher, '+')}{ends} {mark}"


def _prefill(board: Board, row: Row) -> dict[str, str]:
    """Median seconds up to the first new token, and what share they are of the same model's sequential ones."""
    own = row.costs and row.costs.prefill_seconds
    whole = next(
        (
            other.costs.prefill_seconds.median
            for other in board.rows
            if other.sequential and other.model == row.model and other.costs and other.costs.prefill_seconds
        ),
        0,
    )
    return {
        "Prefill s": f"{own.median:.3g}" if own else "",
        "Prefill of sequential's": f"{own.median / whole:.0%}" if own and whole else "",
    }
