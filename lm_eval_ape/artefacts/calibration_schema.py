"""Checks a calibration file against `calibration_schema.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts import json_schema
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL
from lm_eval_ape.attention.factors import NAMES, Factors
from lm_eval_ape.errors import ApeError


@cache
def schema() -> dict[str, Any]:
    """The schema of `calibration.json`."""
    content: dict[str, Any] = json.loads(
        Path(__file__).with_name("calibration_schema.json").read_text(encoding="utf-8")
    )
    return content


def validate(content: Any) -> None:
    """Check the content of `calibration.json`: each part by the schema, and that the parts fit together.

    Raises:
        ApeError: It breaks the schema, or its parts contradict each other; says where and how.
    """
    json_schema.validate(content, schema(), definitions=schema()["$defs"])
    points = [tuple(point) for point in content["grid"]["points"]]
    _check_lengths(content, len(points))
    _check_choices(content, points)
    if gradient := content.get("gradient"):
        _check_curves(gradient)
        _check_factors(gradient)


def _check_lengths(content: Mapping[str, Any], points: int) -> None:
    """What stands in the order of the grid's points, or of the samples, is as long."""
    lengths = {f"grid.{name}": (content["grid"][name], points) for name in ("choosable", "mean_kl")}
    for number, sample in enumerate(content["samples"]):
        lengths |= {f"samples[{number}].{name}": (sample[name], points) for name in ("kl", "positions")}
    if labels := content["labels"]:
        lengths["labels.mean_scores"] = (labels["mean_scores"], len(labels["points"]))
    if entropy := content.get("entropy"):
        lengths |= {f"entropy.{name}": (entropy[name], points) for name in ("mean_entropy", "mean_distance")}
    for name, (values, expected) in lengths.items():
        if len(values) != expected:
            raise ApeError(f"{name} has {len(values)} items, where {expected} are needed.")


def _check_choices(content: Mapping[str, Any], points: Sequence[tuple[float, ...]]) -> None:
    """What was chosen was measured, with that KL, and the points that are always measured are there."""
    means = dict(zip(points, content["grid"]["mean_kl"], strict=True))
    choice = content["choice"]
    for name, part in (
        ("choice", choice),
        *((f"choice.{one}", choice[one]) for one in ("temperature_only", "scale_only")),
    ):
        point = part["attn_temperature"], part["attn_scale"]
        if means.get(point) != part["mean_kl"]:
            raise ApeError(f"{name} is (T, S) = {point} with a mean KL of {part['mean_kl']}, which grid does not have.")
    ranks = {}
    if labels := content["labels"]:
        ranks["labels.spearman"] = labels["spearman"]
        oracle = labels["oracle"]["attn_temperature"], labels["oracle"]["attn_scale"]
        scored = {tuple(point) for point in labels["points"]}
        if not scored <= means.keys() or oracle not in scored:
            raise ApeError("labels has points, or an oracle, which grid does not have.")
    if entropy := content.get("entropy"):
        ranks["entropy.spearman_with_kl"] = entropy["spearman_with_kl"]
    if half := next((name for name, rank in ranks.items() if (rank["low"] is None) != (rank["high"] is None)), None):
        raise ApeError(f"{half} has half an interval.")
    if lost := next((point for point in (DEFAULT, NEUTRAL) if point not in means), None):
        raise ApeError(f"grid.points lacks {tuple(lost)}, which is always measured.")
    grid = content["grid"]
    if missing := next((pair for pair in product(grid["temperatures"], grid["scales"]) if pair not in means), None):
        raise ApeError(f"grid.points lacks {missing}, which grid.temperatures and grid.scales have.")


def _check_curves(gradient: Mapping[str, Any]) -> None:
    """Both curves have a value for each step, the one that was taken among them."""
    training, stopping, step = (gradient[name] for name in ("training", "stopping", "step"))
    if len(training) != len(stopping):
        raise ApeError(f"gradient.stopping has {len(stopping)} items, where {len(training)} are needed.")
    if step >= len(training):
        raise ApeError(f"gradient.step is {step}, which gradient.training does not have.")


def _check_factors(gradient: Mapping[str, Any]) -> None:
    """All tables have one shape, and are those whose digest was written down."""
    tables = {name: table for name, table in gradient["factors"].items() if name in NAMES and table is not None}
    shapes = {name: (len(table), {len(row) for row in table}) for name, table in tables.items()}
    first = shapes["temperature"]
    if wrong := next((name for name, shape in shapes.items() if shape != first or len(shape[1]) > 1), None):
        raise ApeError(f"gradient.factors.{wrong} must be a table of the shape of all others, layers x heads.")
    if ("prefix_temperature" in tables) != ("prefix_scale" in tables):
        raise ApeError("gradient.factors has one of prefix_temperature and prefix_scale, which go together.")
    if Factors.from_json(gradient["factors"]).digest != gradient["sha256"]:
        raise ApeError("gradient.factors are not the numbers whose digest is gradient.sha256: they were changed.")
