"""Score and time against the length of the prompt."""

from __future__ import annotations

from lm_eval_ape.report.board_figures import score_by_length, time_by_length, times
from lm_eval_ape.report.material import Material
from lm_eval_ape.report.section import Drawn, Figures, Section


def build(material: Material, figures: Figures) -> Section | None:
    """Two figures for each board whose lengths and times are known."""
    parts = []
    for number, found in enumerate(material.boards, start=1):
        board, drawn = found.content, list[Drawn]()
        labels = ", ".join(row.label for row in board.rows)
        if board.lengths.buckets:
            tasks = ", ".join(board.lengths.tasks)
            drawn.append(
                figures.add(
                    f"score_by_length_{number}",
                    score_by_length(board),
                    alt=f"Score of {labels} against the length of the prompt.",
                    caption=f"Mean score x100 by the length of the prompt; bars are standard errors. Over {tasks}. The "
                    "rows are drawn side by side, not at different lengths.",
                )
            )
        if measured := times(board):
            drawn.append(
                figures.add(
                    f"time_by_length_{number}",
                    time_by_length(board, measured),
                    alt=f"Seconds of a request of {labels} against the length of the prompt.",
                    caption="Median seconds of a document's requests by the length of its prompt, all tasks together; "
                    "bars go from the lower to the upper quartile.",
                )
            )
        parts.append({"name": found.name, "figures": drawn})
    if not any(part["figures"] for part in parts):
        return None
    return Section("lengths", "Score and time by context length", {"parts": parts})
