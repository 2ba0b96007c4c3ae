"""The calibrations: which (T, S) is closest to the sequential model, and how sure that is."""

from __future__ import annotations

from typing import Any

from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.artefacts.gradient_fit import Gradient
from lm_eval_ape.artefacts.moved_heads import moved
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL
from lm_eval_ape.calibration import figures as drawings
from lm_eval_ape.calibration.document import model_args_line
from lm_eval_ape.calibration.tables import HEADERS, MOVED, frontier_sentences, gradient_sentences, rows_of, sentences
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.section import Drawn, Figures, Section


def build(material: Material, figures: Figures) -> Section | None:
    """A part for each calibration."""
    if not material.calibrations:
        return None
    parts = [_part(number, found, figures) for number, found in enumerate(material.calibrations, start=1)]
    return Section("calibration", "Calibration of T and S", {"parts": parts})


def _part(number: int, found: Found[Calibration], figures: Figures) -> dict[str, Any]:
    content, objective = found.content, found.content.objective
    tasks = ", ".join(task.task for task in content.tasks)
    return {
        "name": found.name,
        "summary": f"{content.model.pretrained}, {len(content.samples)} samples of {tasks}, K = "
        f"{objective.num_tokens} tokens, history {objective.history}, {len(content.grid.points)} points "
        f"measured; on {content.device}, {content.created}.",
        "line": model_args_line(content, str(found.path)),
        "candidates": rows_of(content.frontier) if content.frontier else [],
        "headers": [header.format(content.chosen_by) or "Note" for header in HEADERS],
        "sentences": (frontier_sentences(content.frontier, content.chosen_by) if content.frontier else [])
        + sentences(content)
        + (gradient_sentences(content.gradient) if content.gradient else []),
        "points": _points(content),
        "moved": _moved(content.gradient) if content.gradient else [],
        "figures": _figures(number, content, figures),
    }


def _moved(gradient: Gradient) -> list[tuple[str, str, str, str]]:
    """The layers and heads that moved most: name, T, S and distance; none where the start is the result."""
    found = [] if gradient.at_start else moved(gradient.factors, gradient.start)[:MOVED]
    return [(one.name, f"{one.temperature:.3f}", f"{one.scale:.3f}", f"{one.distance:.3f}") for one in found]


def _points(content: Calibration) -> list[tuple[str, str, str]]:
    """The named points: name, (T, S), mean KL."""
    choice, grid = content.choice, content.grid
    means = grid.means
    named = {
        "chosen by KL": choice.point,
        "T only": choice.temperature_only.point,
        "S only": choice.scale_only.point,
        "APE's default": DEFAULT,
        "untuned": NEUTRAL,
    }
    if content.labels:
        named["label-tuned"] = content.labels.oracle.point
    return [
        (name, f"T = {point[0]:g}, S = {point[1]:g}", f"{means[point]:.4g}" if point in means else "not measured")
        for name, point in named.items()
    ]


def _figures(number: int, content: Calibration, figures: Figures) -> list[Drawn]:
    metric = content.labels and content.labels.metric
    words = {
        "frontier": (
            "Cost against distance from the sequential model, a numbered point for each encoding.",
            "What each encoding costs and how far it is from the sequential model, with 95% intervals. The dotted line "
            "joins those that no other one beats in both; the list beside names them all.",
        ),
        "kl_surface": (
            f"Mean KL over the grid of T and S; the least is at {content.choice.point}.",
            "Mean KL at every point of the grid. Points with an outline: chosen (square), APE's default (diamond), "
            "untuned (circle), where the grid has them; all are in the table.",
        ),
        "bootstrap": (
            "How often resamples of the samples choose each T and each S.",
            "What would have been chosen from other samples: shares of bootstrap resamples. A parameter is called "
            "stable if its 95% interval is at most 0.1 wide.",
        ),
        "kl_and_score": (
            f"Mean KL against {metric}, a dot for each point of the grid.",
            "Whether a smaller KL goes with a better score, over the grid's points. The labels had no part in the "
            "choice.",
        ),
        "factors": (
            "T and S of each layer and head as heat maps.",
            "T and S of each layer and head, as the gradient found them; 1 leaves attention as it is.",
        ),
        "training": (
            "KL at each step on samples that the fit learns from and on others.",
            "Mean KL at each step on the samples that are fitted and on those that say when to stop. A gap between the "
            "two is what the fit learned of its samples alone.",
        ),
    }
    drawn = drawings.all_figures(content)
    # A board's own figure of KL and score has that name.
    names = {"kl_and_score": "kl_and_label"}
    return [
        figures.add(f"{names.get(name, name)}_{number}", drawn[name], alt=alt, caption=caption)
        for name, (alt, caption) in words.items()
        if name in drawn
    ]
