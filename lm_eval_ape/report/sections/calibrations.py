"""The calibrations: which (T, S) is closest to the sequential model, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval_ape.calibration import figures as drawings
from lm_eval_ape.calibration.document import model_args_line
from lm_eval_ape.calibration.grid import Point
from lm_eval_ape.calibration.report import sentences
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.section import Drawn, Figures, Section


def build(material: Material, figures: Figures) -> Section | None:
    """A part for each calibration."""
    if not material.calibrations:
        return None
    parts = [_part(number, found, figures) for number, found in enumerate(material.calibrations, start=1)]
    return Section("calibration", "Calibration of T and S", {"parts": parts})


def _part(number: int, found: Found, figures: Figures) -> dict[str, Any]:
    content = found.content
    choice, objective = content["choice"], content["objective"]
    tasks = ", ".join(task["task"] for task in content["tasks"])
    return {
        "name": found.name,
        "summary": f"{content['model']['pretrained']}, {len(content['samples'])} samples of {tasks}, K = "
        f"{objective['num_tokens']} tokens, history {objective['history']}, {len(content['grid']['points'])} points "
        f"measured; on {content['device']}, {content['created']}.",
        "line": model_args_line(Point(choice["attn_temperature"], choice["attn_scale"])),
        "sentences": sentences(content),
        "points": _points(content),
        "figures": _figures(number, content, figures),
        "test": content["test"],
    }


def _points(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The named points: name, (T, S), mean KL."""
    choice, grid = content["choice"], content["grid"]
    means = {tuple(point): mean for point, mean in zip(grid["points"], grid["mean_kl"], strict=True)}
    named = {
        "chosen by KL": (choice["attn_temperature"], choice["attn_scale"]),
        "T only": (choice["temperature_only"]["attn_temperature"], choice["temperature_only"]["attn_scale"]),
        "S only": (choice["scale_only"]["attn_temperature"], choice["scale_only"]["attn_scale"]),
        "APE's default": (0.9, 0.9),
        "untuned": (1.0, 1.0),
    }
    if oracle := (content["labels"] or {}).get("oracle"):
        named["label-tuned"] = (oracle["attn_temperature"], oracle["attn_scale"])
    return [
        (name, f"T = {point[0]:g}, S = {point[1]:g}", f"{means[point]:.4g}" if point in means else "not measured")
        for name, point in named.items()
    ]


def _figures(number: int, content: Mapping[str, Any], figures: Figures) -> list[Drawn]:
    point = Point(content["choice"]["attn_temperature"], content["choice"]["attn_scale"])
    drawn = [
        figures.add(
            f"kl_surface_{number}",
            drawings.surface(content),
            alt=f"Mean KL over the grid of T and S; the least is at {point}.",
            caption="Mean KL at every point of the grid. Points with an outline: chosen (square), APE's default "
            "(diamond), untuned (circle), where the grid has them; all are in the table.",
        ),
        figures.add(
            f"bootstrap_{number}",
            drawings.resamples(content),
            alt="How often resamples of the samples choose each T and each S.",
            caption="What would have been chosen from other samples: shares of bootstrap resamples. A parameter is "
            "called stable if its 95% interval is at most 0.1 wide.",
        ),
    ]
    if content["labels"]:
        drawn.append(
            figures.add(
                f"kl_and_label_{number}",
                drawings.kl_and_score(content),
                alt=f"Mean KL against {content['labels']['metric']}, a dot for each point of the grid.",
                caption="Whether a smaller KL goes with a better score, over the grid's points. The labels had no part "
                "in the choice.",
            )
        )
    return drawn
