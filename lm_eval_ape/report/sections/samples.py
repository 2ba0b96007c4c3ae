"""The samples: question, answer, each strategy's answer, its score, and its KL token by token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval_ape.artefacts.board import Board, Sample
from lm_eval_ape.display.plot_style import series
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.section import Figures, Section

PRINTED = 12


def build(material: Material, figures: Figures) -> Section | None:
    """All samples as data for the page's script, and a few for paper and for browsers without scripts."""
    browsers = [_browser(found) for found in material.boards]
    return Section("samples", "Samples", {"browsers": browsers}) if any(b["count"] for b in browsers) else None


def _browser(found: Found[Board]) -> dict[str, Any]:
    board = found.content
    samples = [_sample(task, sample) for task, part in board.samples.items() for sample in part]
    styles = series(len(board.rows))
    rows = [
        {
            "label": row.label,
            "glyph": style.glyph,
            "color": style.color,
            "teacher": row.sequential,
            "measured": row.kl is not None,
        }
        for row, style in zip(board.rows, styles, strict=True)
    ]
    tasks = {name: {"metric": task.metric, "higher": task.higher_is_better} for name, task in board.tasks.items()}
    printed = sorted(samples, key=lambda sample: -_disagreement(sample))[:PRINTED]
    return {
        "name": found.name,
        "count": len(samples),
        "tasks": list(board.tasks),
        "data": {
            "baseline": board.baseline,
            "unit": board.lengths.unit,
            "rows": rows,
            "tasks": tasks,
            "samples": samples,
        },
        "printed": printed,
        "rows": {row["label"]: row for row in rows},
    }


def _sample(task: str, sample: Sample) -> dict[str, Any]:
    return {
        "task": task,
        "doc": sample.doc_id,
        "length": sample.length,
        "prompt": sample.prompt_end,
        "target": sample.target,
        "runs": {
            label: {
                "score": run.score,
                "prediction": run.prediction,
                "metrics": run.metrics,
                "kl": None if run.kl is None else [prompt.as_json() for prompt in run.kl],
                "chunks": max((len(request.chunk_tokens) for request in run.requests or ()), default=None),
            }
            for label, run in sample.runs.items()
        },
    }


def _disagreement(sample: Mapping[str, Any]) -> float:
    scores = [run["score"] for run in sample["runs"].values() if run["score"] is not None]
    return max(scores, default=0.0) - min(scores, default=0.0)
