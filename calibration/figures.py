"""Figures of a calibration: the KL surface, the resamples' choices, KL against score, and what a gradient found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_WIDTH, _HEIGHT = 5.0, 4.0
# Most numbers written into a heat map, and about the most ticks on an axis.
_WRITTEN, _TICKS = 128, 16
_TITLES = {
    "temperature": "T of the context",
    "scale": "S of the context",
    "prefix_temperature": "T of the prefix",
    "prefix_scale": "S of the prefix",
}


def draw(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a calibration file into a folder, each figure as PNG and SVG.

    Args:
        content: The file's content.
        folder: Where to.

    Returns:
        The files written.
    """
    figures = all_figures(content)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        for kind in FORMATS:
            paths.append(folder / f"{name}.{kind}")
            figure.savefig(paths[-1], dpi=150, bbox_inches="tight")
    return paths


def all_figures(content: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure that a calibration file has the numbers for, by name."""
    figures: dict[str, Figure] = {}
    gradient = content.get("gradient")
    if not gradient or len(content["grid"]["points"]) > 2:
        figures |= {"kl_surface": surface(content), "bootstrap": resamples(content)}
    if content["labels"]:
        figures["kl_and_score"] = kl_and_score(content)
    if gradient:
        figures |= {"factors": factors(gradient), "training": training(gradient)}
    return figures


def factors(gradient: Mapping[str, Any]) -> Figure:
    """T and S by layer and head as heat maps; those of the prefix below, if it has its own.

    Args:
        gradient: The part `gradient` of a calibration file.
    """
    tables = {name: np.array(table) for name, table in gradient["factors"].items() if table is not None}
    layers, heads = next(iter(tables.values())).shape
    rows = len(tables) // 2
    size = max(_WIDTH, 0.35 * heads), rows * max(_HEIGHT / 2, 0.3 * layers)
    figure = Figure(figsize=(2 * size[0], size[1]), layout="constrained")
    # Red above 1, blue below: a diverging map that is told apart with any colour vision, white at 1 on a log axis.
    reach = max(0.05, *(float(np.abs(np.log2(table)).max()) for table in tables.values()))
    images = []
    for number, (name, table) in enumerate(tables.items(), start=1):
        axes = figure.add_subplot(rows, 2, number)
        images.append(axes.imshow(np.log2(table), cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto"))
        axes.set_xticks(range(heads) if heads <= _TICKS else range(0, heads, heads // _TICKS))
        axes.set_yticks(range(layers) if layers <= _TICKS else range(0, layers, layers // _TICKS))
        axes.set(xlabel="head" if heads > 1 else "all heads", ylabel="layer", title=_TITLES[name])
        if table.size <= _WRITTEN:
            for row, column in np.ndindex(table.shape):
                color = "w" if abs(np.log2(table[row, column])) > 0.6 * reach else "k"
                axes.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", color=color, fontsize=8)
    bar = figure.colorbar(images[0], ax=figure.axes)
    ticks = np.linspace(-reach, reach, 5)
    bar.set_ticks(list(ticks), labels=[f"{2**tick:.2f}" for tick in ticks])
    return figure


def training(gradient: Mapping[str, Any]) -> Figure:
    """Mean KL at each step on the fitting and on the validation samples; the step taken is marked."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(gradient["training"], color="#0072B2", label=f"fitting, {len(gradient['fitting'])} samples")
    if gradient["validation"]:
        text = f"validation, {len(gradient['validation'])} samples"
        axes.plot(gradient["stopping"], color="#D55E00", linestyle="--", label=text)
    axes.axvline(gradient["step"], color="0.4", linestyle=":", label=f"taken: step {gradient['step']}")
    axes.set(xlabel="step", ylabel="mean KL (nats)", title=f"Granularity {gradient['granularity']}")
    axes.legend()
    return figure


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
