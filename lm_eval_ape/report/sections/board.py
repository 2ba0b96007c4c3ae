"""The board: what each strategy scores, how likely the right answers are to it, and what it costs; sortable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lm_eval_ape.artefacts.board import Board, Score
from lm_eval_ape.comparison import tables
from lm_eval_ape.comparison.answer import answer
from lm_eval_ape.display.plot_style import Series, series
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.section import Figures, Section


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: What it shows.
        order: What it is sorted by: a number, text, or None where there is nothing.
        style: How its row is drawn in figures; None in all but the row's name.
        verdict: `better`, `worse` or `noise`, where the cell says that.
    """

    text: str
    order: float | str | None
    style: Series | None = None
    verdict: str = ""


class Sortable(NamedTuple):
    """A table whose columns can be sorted.

    Attributes:
        title: Its caption.
        note: How to read it.
        headers: Names of its columns, the row's name first.
        rows: Its cells.
        tasks: Each row's task, to filter by; empty where rows have none.
    """

    title: str
    note: str
    headers: list[str]
    rows: list[list[Cell]]
    tasks: list[str]


VERDICTS = {tables.BETTER: "better", tables.WORSE: "worse", tables.NOISE: "noise"}
VERDICT_WORDS = {"better": "better", "worse": "worse", "noise": "within noise"}


def build(material: Material, figures: Figures) -> Section | None:
    """A board for each comparison."""
    if not material.boards:
        return None
    return Section("board", "Board", {"boards": [_board(found) for found in material.boards]})


def _board(found: Found[Board]) -> dict[str, Any]:
    board = found.content
    styles = {row.label: style for row, style in zip(board.rows, series(len(board.rows)), strict=True)}
    drawn = tables.line_tables(board)
    sortable = [(_by_task if table.headers[0] == "Tasks" else _plain)(table, styles) for table in drawn]
    return {
        "name": found.name,
        "answer": answer(board),
        "glance": _glance(board, styles),
        "tables": sortable,
        "tasks": list(dict.fromkeys(sortable[0].tasks)),
    }


def _glance(board: Board, styles: Mapping[str, Series]) -> dict[str, Any]:
    """The average, or the first task where there is none, in large figures."""
    first = board.rows[0].average
    # All rows' averages are over the same tasks.
    whole = first.tasks if first and len(first.tasks) > 1 else []
    task = whole[0] if whole else next(iter(board.tasks))
    cards = []
    for row in board.rows:
        score: Score | None = row.average if whole else row.tasks.get(task)
        if score is None:
            continue
        higher = board.tasks[task].higher_is_better
        found = score.difference
        verdict = "" if found is None else "noise" if found.within_noise else _direction(found.mean, higher)
        cards.append(
            {
                "label": row.label,
                "settings": tables.settings_words(row),
                "style": styles[row.label],
                "score": f"{100 * score.score:.1f}",
                "stderr": "" if score.stderr is None else f"± {100 * score.stderr:.1f}",
                "difference": "" if found is None else f"{100 * found.mean:+.1f}",
                "ends": ""
                if found is None or found.low is None or found.high is None
                else f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
                "verdict": verdict,
                "words": VERDICT_WORDS.get(verdict, ""),
                "baseline": row.label == board.baseline,
            }
        )
    what = f"average of {len(whole)} tasks" if whole else task
    return {"what": what, "cards": cards, "baseline": board.baseline}


def _direction(mean: float, higher: bool) -> str:
    return "better" if (mean > 0) == higher else "worse"


def _by_task(table: tables.Table, styles: Mapping[str, Series]) -> Sortable:
    """A table of tasks and rows with its task on every line, so that lines can be sorted, and verdicts in words."""
    rows: list[list[Cell]] = []
    tasks: list[str] = []
    for cells in table.rows:
        tasks.append(cells[0] or tasks[-1])
        task = tasks[-1]
        line = [Cell(cells[1], cells[1].lower(), styles[cells[1]]), Cell(task, task.lower())]
        rows.append(line + [_cell(text) for text in cells[2:]])
    headers = [header or "Verdict" for header in (table.headers[1], "Task", *table.headers[2:])]
    return Sortable(table.title, table.caption, headers, rows, tasks)


def _plain(table: tables.Table, styles: Mapping[str, Series]) -> Sortable:
    rows = [[Cell(c[0], c[0].lower(), styles[c[0]]), *map(_cell, c[1:])] for c in table.rows]
    return Sortable(table.title, table.caption, table.headers, rows, [])


def _cell(text: str) -> Cell:
    if verdict := VERDICTS.get(text):
        return Cell(f"{text} {VERDICT_WORDS[verdict]}", verdict, None, verdict)
    return Cell(text, next(_numbers(text), text.lower() or None))


def _numbers(text: str) -> Iterator[float]:
    """The number that a cell's text begins with, if it is one."""
    words = text.replace("±", "").replace("[", "").replace(",", " ").rstrip("]%").replace("<", "").split()
    try:
        yield float(words[0])
    except (ValueError, IndexError):
        return
