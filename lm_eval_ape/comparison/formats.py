"""A board for the terminal, in Markdown like the harness's tables, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from typing import Any

from pytablewriter import MarkdownTableWriter
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lm_eval_ape.artefacts.board import Average, Board, Row, Score
from lm_eval_ape.comparison.answer import answer
from lm_eval_ape.comparison.tables import Table, settings_words, tables
from lm_eval_ape.display import escaping
from lm_eval_ape.display.escaping import csv_cell, terminal


def show(board: Board, console: Console) -> None:
    """Print the tables, what they answer, and notes."""
    for table in tables(board):
        console.print(drawn(table, {"Tasks", "Strategy", "Settings", "Metric", "Device"}))
    for text in filter(None, [answer(board), *board.notes]):
        console.print(terminal(text), markup=False, highlight=False, soft_wrap=True)


def drawn(table: Table, texts: Collection[str]) -> RichTable:
    """A table for the terminal, its cells as they are: no markup, no escape sequences.

    Args:
        table: The table.
        texts: Headers of columns that are to the left.
    """
    found = RichTable(title=Text(terminal(table.title)), caption=Text(terminal(table.caption)))
    for header in table.headers:
        found.add_column(header, justify="left" if header in texts else "right")
    for cells in table.rows:
        # A task's first line has its name: a rule above it parts the tasks.
        if table.headers[0] == "Tasks" and cells[0] and found.row_count:
            found.add_section()
        found.add_row(*(Text(terminal(cell)) for cell in cells))
    return found


def markdown(board: Board) -> str:
    """The tables as Markdown, written as the harness writes its own."""
    said = answer(board)
    parts = [f"{escaping.markdown(said)}\n"] if said else []
    parts += map(markdown_table, tables(board))
    if board.notes:
        parts.append("### Notes\n\n" + "".join(f"- {escaping.markdown(note)}\n" for note in board.notes))
    return "\n".join([*parts, made_by(board.command, board.versions["lm_eval_ape"], board.created)])


def markdown_table(table: Table) -> str:
    """A table in Markdown, with its title and caption."""
    cells = [[escaping.markdown(cell) for cell in row] for row in table.rows]
    writer = MarkdownTableWriter(
        headers=table.headers,
        value_matrix=cells,
        type_hints=["str"] * len(table.headers),
        is_escape=False,
    )
    return f"### {table.title}\n\n{writer.dumps()}\n{escaping.markdown(table.caption)}\n"


def made_by(command: str, version: str, created: str) -> str:
    """The line of Markdown that names the command, version and date of a board or an analysis."""
    made = f"{escaping.code(command)}, " if command else ""
    return f"Made by {made}lm_eval_ape {escaping.markdown(version)}, {escaping.markdown(created)}.\n"


def comma_separated(board: Board) -> str:
    """One line for each row and task, and each row's average, with unrounded values in the metric's own unit."""
    lines = []
    for row in board.rows:
        parts: list[tuple[str, Score]] = list(row.tasks.items())
        parts += [("average", row.average)] if row.average else []
        lines += [_csv_line(board, row, task, score) for task, score in parts]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _csv_line(board: Board, row: Row, task: str, score: Score) -> dict[str, Any]:
    facts = [board.tasks[name] for name in (score.tasks if isinstance(score, Average) else [task])]
    difference = score.difference.as_json() if score.difference else {}
    kl = score.kl.as_json() if score.kl else {}
    answer = score.answer_nats.as_json() if score.answer_nats else {}
    nats = answer.get("difference") or {}
    cost = row.costs.as_json() if row.costs else {}
    settings = row.settings or {}
    line = {
        "task": task,
        "strategy": row.label,
        "model": row.model,
        "settings": settings_words(row),
        "attn_temperature": settings.get("attn_temperature"),
        "attn_scale": settings.get("attn_scale"),
        "metric": None if isinstance(score, Average) else facts[0].metric,
        "documents": sum(fact.documents for fact in facts),
        "score": score.score,
        "stderr": score.stderr,
        "baseline": board.baseline,
        "difference": difference.get("mean"),
        "low": difference.get("low"),
        "high": difference.get("high"),
        "p_value": difference.get("p_value"),
        "within_noise": difference.get("within_noise"),
        "kept": score.kept,
        "kl_mean": kl.get("mean"),
        "kl_stderr": kl.get("stderr"),
        "kl_tokens": row.kl.num_tokens if row.kl else None,
        "answer_nats": answer.get("mean"),
        "answer_nats_stderr": answer.get("stderr"),
        "answer_tokens": answer.get("tokens"),
        "answer_nats_difference": nats.get("mean"),
        **{f"answer_nats_{name}": nats.get(name) for name in ("low", "high", "p_value", "within_noise")},
        **{
            f"{name}_median": (cost.get(name) or {}).get("median")
            for name in ("prefill_seconds", "seconds", "scoring_seconds")
        },
        "decode_tokens_per_second": cost.get("decode_tokens_per_second"),
        "peak_memory_bytes": cost.get("peak_memory_bytes"),
        "chunks_mean": (cost.get("chunks") or {}).get("mean"),
        "tokens_mean": (cost.get("tokens") or {}).get("mean"),
    }
    return {name: csv_cell(value) for name, value in line.items()}
