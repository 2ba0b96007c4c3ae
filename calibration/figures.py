"""Figures of a calibration: the KL surface, the resamples' choices, and KL against score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_WIDTH, _HEIGHT = 5.0, 4.0


def draw(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a calibration file into a folder, each figure as PNG and SVG.

    Args:
        content: The file's content.
        folder: Where to.

    Returns:
        The files written.
    """
    figures = {"kl_surface": surface(content), "bootstrap": resamples(content)}
    if content["labels"]:
        figures["kl_and_score"] = kl_and_score(content)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        for kind in FORMATS:
            paths.append(folder / f"{name}.{kind}")
            figure.savefig(paths[-1], dpi=150, bbox_inches="tight")
    return paths


def surface(content: Mapping[str, Any]) -> Figure:
    """Mean KL over the grid, the chosen point marked."""
    grid, choice = content["grid"], content["choice"]
    temperatures, scales = grid["temperatures"], grid["scales"]
    means = {tuple(point): mean for point, mean in zip(grid["points"], grid["mean_kl"], strict=True)}
    values = np.array([[means[t, s] for s in scales] for t in temperatures])
    figure = Figure(figsize=(max(_WIDTH, 0.8 * len(scales)), max(_HEIGHT, 0.6 * len(temperatures))))
    axes = figure.add_subplot()
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis_r")
    middle = (values.min() + values.max()) / 2
    for row, column in np.ndindex(values.shape):
        mean = values[row, column]
        axes.text(column, row, f"{mean:.3g}", ha="center", va="center", color="w" if mean > middle else "k", fontsize=8)
    axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
    axes.set_yticks(range(len(temperatures)), [f"{temperature:g}" for temperature in temperatures])
    row, column = temperatures.index(choice["attn_temperature"]), scales.index(choice["attn_scale"])
    axes.plot(column, row, marker="s", markersize=26, markerfacecolor="none", markeredgecolor="red", markeredgewidth=2)
    axes.set(
        xlabel="scale S", ylabel="temperature T", title=f"Mean KL to the teacher, {len(content['samples'])} samples"
    )
    figure.colorbar(image, ax=axes, label="nats")
    return figure


def resamples(content: Mapping[str, Any]) -> Figure:
    """How often the resamples choose each value of T and of S."""
    stability, grid = content["stability"], content["grid"]
    figure = Figure(figsize=(2 * _WIDTH, _HEIGHT), layout="constrained")
    parameters = (("temperature", "temperature T", grid["temperatures"]), ("scale", "scale S", grid["scales"]))
    for index, (name, label, values) in enumerate(parameters):
        shares = _shares(stability["frequencies"], index, values)
        axes = figure.add_subplot(1, 2, index + 1)
        axes.bar([f"{value:g}" for value in values], shares)
        found = stability[name]
        verdict = "stable" if found["stable"] else "unstable"
        axes.set(xlabel=label, ylabel=f"share of {stability['resamples']} resamples", ylim=(0, 1))
        axes.set_title(f"mode {found['mode']:g}, 95% [{found['low']:g}, {found['high']:g}]: {verdict}")
    return figure


def _shares(frequencies: Sequence[Mapping[str, Any]], index: int, values: Sequence[float]) -> list[float]:
    return [sum(found["share"] for found in frequencies if found["point"][index] == value) for value in values]


def kl_and_score(content: Mapping[str, Any]) -> Figure:
    """Mean KL against mean score, a dot a point of the grid."""
    labels, grid, choice = content["labels"], content["grid"], content["choice"]
    means = {tuple(point): mean for point, mean in zip(grid["points"], grid["mean_kl"], strict=True)}
    scores = {tuple(point): score for point, score in zip(labels["points"], labels["mean_scores"], strict=True)}
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter([means[point] for point in scores], list(scores.values()), color="tab:gray")
    marked = {"chosen": choice, "label-tuned": labels["oracle"]}
    for (name, found), color in zip(marked.items(), ("tab:red", "tab:blue"), strict=True):
        point = (found["attn_temperature"], found["attn_scale"])
        axes.scatter(means[point], scores[point], color=color, label=f"{name} ({point[0]:g}, {point[1]:g})")
    rho = labels["spearman"]["rho"]
    axes.set(xlabel="mean KL (nats)", ylabel=labels["metric"])
    axes.set_title("no rank correlation defined" if rho is None else f"Spearman's rho {rho:.2f}")
    axes.legend()
    return figure
