"""The analyses: what attention looks like under each strategy, and how its entropy goes with the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval_ape.analysis import figures as drawings
from lm_eval_ape.analysis.tables import tables
from lm_eval_ape.artefacts.analysis import Analysis
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.section import Drawn, Figures, Section

CAPTIONS: Mapping[str, str] = {
    "entropy_by_chunks": "Entropy of the query tokens' attention rows against the number of chunks; bars are standard "
    "errors over documents. One chunk is the sequential model.",
    "score_by_chunks": "Score against the number of chunks; bars are standard errors.",
    "entropy_and_score": "Entropy against score; numbers are chunks.",
    "entropy_by_head": "Entropy of every layer and head of the first case, and how much more each strategy's last "
    "case has.",
    "key_norms": "Norm of keys, mean over layers and heads, by their place in the chunk.",
}


def build(material: Material, figures: Figures) -> Section | None:
    """A part for each analysis."""
    if not material.analyses:
        return None
    parts = [_part(number, found, figures) for number, found in enumerate(material.analyses, start=1)]
    return Section("analysis", "Attention", {"parts": parts})


def _part(number: int, found: Found[Analysis], figures: Figures) -> dict[str, Any]:
    content = found.content
    return {
        "name": found.name,
        "summary": f"{content.model.pretrained} on {', '.join(content.tasks)}; on {content.device}, {content.created}.",
        "command": content.command,
        "tables": tables(content),
        "figures": _figures(number, content, figures),
    }


def _figures(number: int, content: Analysis, figures: Figures) -> list[Drawn]:
    labels = ", ".join(case.label for case in content.cases)
    drawn = drawings.figures(content)
    return [
        figures.add(
            f"{name}_{number}",
            drawn[name],
            alt=f"{caption.partition(';')[0].rstrip('.')}: {labels}. The numbers are in the table above.",
            caption=caption,
        )
        for name, caption in CAPTIONS.items()
        if name in drawn
    ]
