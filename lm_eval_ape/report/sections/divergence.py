"""The KL of each strategy from the sequential model, against its score."""

from __future__ import annotations

from typing import Any

from lm_eval_ape.report.board_figures import kl_and_score, with_kl
from lm_eval_ape.report.material import Material
from lm_eval_ape.report.section import Figures, Section


def build(material: Material, figures: Figures) -> Section | None:
    """A figure for each board with divergences."""
    parts: list[dict[str, Any]] = []
    for number, found in enumerate(material.boards, start=1):
        board = found.content
        if not (tasks := with_kl(board)):
            continue
        objective = next(row.kl for row in board.rows if row.kl)
        drawn = figures.add(
            f"kl_and_score_{number}",
            kl_and_score(board, tasks),
            alt=f"Mean KL against mean score of {', '.join(row.label for row in board.rows)}.",
            caption=f"Mean KL of the next-token distributions from the sequential model's over its first "
            f"{objective.num_tokens} greedy tokens, against the mean score; bars are standard errors. The "
            "sequential model is 0 from itself by definition.",
        )
        parts.append({"name": found.name, "figures": [drawn]})
    return Section("divergence", "KL and score", {"parts": parts}) if parts else None
