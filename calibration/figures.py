"""Figures of a calibration: the KL surface, the resamples' choices, KL against score, and what a gradient found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lm_eval_ape.artefacts.calibration import Calibration, Frequency, Labels
from lm_eval_ape.artefacts.frontier import Frontier
from lm_eval_ape.artefacts.gradient_fit import Gradient
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.display.plot_style import HEAT, INK, save, series, styled

_WIDTH, _HEIGHT = 5.0, 4.0
# Most numbers written into a heat map, and about the most ticks on an axis.
_WRITTEN, _TICKS = 128, 16
_TITLES = {
    "temperature": "T of the context",
    "scale": "S of the context",
    "prefix_temperature": "T of the prefix",
    "prefix_scale": "S of the prefix",
}


def draw(content: Calibration, folder: Path) -> list[Path]:
    """Draw a calibration file into a folder, each figure as PNG and SVG.

    Args:
        content: The file's content.
        folder: Where to.

    Returns:
        The files written.
    """
    return [path for name, figure in all_figures(content).items() for path in save(figure, folder, name)]


def all_figures(content: Calibration) -> dict[str, Figure]:
    """Every figure that a calibration file has the numbers for, by name."""
    figures: dict[str, Figure] = {}
    gradient = content.gradient
    if not gradient or len(content.grid.points) > 2:
        figures |= {"kl_surface": surface(content), "bootstrap": resamples(content)}
    if content.frontier:
        figures["frontier"] = frontier(content.frontier, content.chosen_by)
    if content.labels:
        figures["kl_and_score"] = kl_and_score(content, content.labels)
    if gradient:
        figures |= {} if gradient.at_start else {"factors": factors(gradient)}
        figures["training"] = training(gradient)
    return figures


@styled()
def frontier(found: Frontier, chosen_by: str) -> Figure:
    """What each encoding costs and how far it is from the teacher, every one named beside the figure.

    Args:
        found: The part `frontier` of a calibration file.
        chosen_by: What the encodings are judged by, in words.
    """
    shown = sorted((one for one in found.candidates if one.best), key=lambda one: one.share)
    figure = Figure(figsize=(2 * _WIDTH, max(_HEIGHT, 0.24 * len(shown) + 1)), layout="constrained")
    axes = figure.add_subplot()
    other, on, taken = series(3)
    # Zero, which a logarithm has no place for, stands at the least other one.
    least = min((one.best.value for one in shown if one.best and one.best.value > 0), default=1.0)
    steps: list[tuple[float, float]] = []
    lines = []
    for number, one in enumerate(shown, start=1):
        assert one.best
        style = taken if one.name == found.chosen else on if one.frontier else other
        height = max(one.best.value, least)
        low, high = (max(end, least / 10) for end in (one.best.interval.low, one.best.interval.high))
        bars = [[max(0.0, height - low)], [max(0.0, high - height)]]
        axes.errorbar(one.share, height, yerr=bars, fmt=style.marker, color=style.color, capsize=2, markersize=6)
        axes.annotate(str(number), (one.share, height), xytext=(5, 4), textcoords="offset points", fontsize=8)
        sign = "chosen" if style is taken else "frontier" if style is on else f"{one.samples} samples"
        lines.append(f"{number}  {one.name} ({sign})")
        steps += [(one.share, height)] if one.frontier else []
    if steps:
        axes.step(*zip(*sorted(steps), strict=True), where="post", color=INK, linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set(xlabel="operations up to the first new token, share of sequential's", ylabel=chosen_by)
    axes.set_title(f"Encodings: cost and {chosen_by}")
    figure.text(1.01, 0.98, "\n".join(lines), va="top", fontsize=8, transform=axes.transAxes)
    return figure


@styled()
def factors(gradient: Gradient) -> Figure:
    """T and S by layer and head as heat maps; those of the prefix below, if it has its own.

    Args:
        gradient: The part `gradient` of a calibration file.
    """
    tables = {name: np.array(table) for name, table in gradient.factors.tables.items()}
    layers, heads = next(iter(tables.values())).shape
    rows = len(tables) // 2
    size = max(_WIDTH, 0.35 * heads), rows * max(_HEIGHT / 2, 0.3 * layers)
    figure = Figure(figsize=(2 * size[0], size[1]), layout="constrained")
    # Orange above 1, purple below: a diverging map that works with any colour vision, white at 1 on a log axis.
    reach = max(0.05, *(float(np.abs(np.log2(table)).max()) for table in tables.values()))
    images = []
    for number, (name, table) in enumerate(tables.items(), start=1):
        axes = figure.add_subplot(rows, 2, number)
        images.append(axes.imshow(np.log2(table), cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto"))
        axes.grid(visible=False)
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


@styled()
def training(gradient: Gradient) -> Figure:
    """Mean KL at each step on samples that the fit learns from and on others; the step taken is marked."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    fitting, stopping, taken = series(3)
    axes.plot(gradient.training, color=fitting.color, label=f"fitting, {len(gradient.fitting)} samples")
    if gradient.validation or gradient.levels:
        text = f"validation, {len(gradient.validation)} samples"
        text = f"held out, {len(gradient.kl)} samples" if gradient.levels else text
        axes.plot(gradient.stopping, color=stopping.color, linestyle="--", label=text)
    axes.axvline(gradient.step, color=taken.color, linestyle=":", label=f"taken: step {gradient.step}")
    shown = gradient.levels[-1] if gradient.at_start else gradient
    axes.set(xlabel="step", ylabel="mean KL (nats)", title=f"Granularity {shown.granularity}")
    axes.legend()
    return figure


@styled()
def surface(content: Calibration) -> Figure:
    """Mean KL over the grid; the chosen point, APE's default and (1, 1) are marked where the grid has them."""
    grid = content.grid
    temperatures, scales = grid.temperatures, grid.scales
    means = grid.means
    values = np.array([[means[Point(t, s)] for s in scales] for t in temperatures])
    figure = Figure(
        figsize=(max(_WIDTH, 0.8 * len(scales)), max(_HEIGHT, 0.7 * len(temperatures))), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.grid(visible=False)
    axes.pcolormesh(values, cmap=HEAT, edgecolors="white", linewidth=1)
    middle = (values.min() + values.max()) / 2
    for row, column in np.ndindex(values.shape):
        dark = values[row, column] > middle
        center: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if dark else "black"}
        axes.text(column + 0.5, row + 0.5, f"{values[row, column]:.3g}", **center)
    axes.set_xticks(np.arange(len(scales)) + 0.5, [f"{scale:g}" for scale in scales])
    axes.set_yticks(np.arange(len(temperatures)) + 0.5, [f"{temperature:g}" for temperature in temperatures])
    for (name, point), marker in zip(_marked(content).items(), ("s", "D", "o"), strict=True):
        if point.temperature in temperatures and point.scale in scales:
            place = scales.index(point.scale) + 0.5, temperatures.index(point.temperature) + 0.5
            outline: dict[str, Any] = {
                "marker": marker,
                "markerfacecolor": "none",
                "markersize": 27,
                "linestyle": "none",
            }
            # Black in white, to be seen on every colour.
            axes.plot(*place, **outline, markeredgecolor="white", markeredgewidth=5)
            axes.plot(*place, **outline, markeredgecolor="black", markeredgewidth=2)
            sign: dict[str, Any] = {**outline, "markersize": 9, "markeredgecolor": INK, "markeredgewidth": 1.5}
            axes.plot([], [], **sign, label=f"{name} {point}")
    figure.legend(loc="outside lower center", ncols=1)
    title = f"Mean KL to the teacher in nats, {len(content.samples)} samples"
    axes.set(xlabel="scale S", ylabel="temperature T", title=title)
    return figure


def _marked(content: Calibration) -> dict[str, Point]:
    return {"chosen by KL": content.choice.point, "APE's default": DEFAULT, "untuned": NEUTRAL}


@styled()
def resamples(content: Calibration) -> Figure:
    """How often the resamples choose each value of T and of S."""
    stability, grid = content.stability, content.grid
    figure = Figure(figsize=(2 * _WIDTH, _HEIGHT), layout="constrained")
    parameters = (
        (stability.temperature, "temperature T", grid.temperatures),
        (stability.scale, "scale S", grid.scales),
    )
    for index, (found, label, values) in enumerate(parameters):
        shares = _shares(stability.frequencies, index, values)
        axes = figure.add_subplot(1, 2, index + 1)
        bars = axes.bar([f"{value:g}" for value in values], shares, color=series(2)[1].color)
        axes.bar_label(bars, [f"{share:.0%}" if share else "" for share in shares], padding=2)
        verdict = "stable" if found.stable else "unstable"
        axes.set(xlabel=label, ylabel=f"share of {stability.resamples} resamples", ylim=(0, 1.08))
        axes.set_title(f"mode {found.mode:g}, 95% [{found.low:g}, {found.high:g}]: {verdict}")
    return figure


def _shares(frequencies: Sequence[Frequency], index: int, values: Sequence[float]) -> list[float]:
    return [sum(found.share for found in frequencies if found.point[index] == value) for value in values]


@styled()
def kl_and_score(content: Calibration, labels: Labels) -> Figure:
    """Mean KL against mean score, a dot a point of the grid; the named points have markers of their own."""
    means, scores = content.grid.means, dict(zip(labels.points, labels.mean_scores, strict=True))
    figure = Figure(figsize=(_WIDTH, _HEIGHT + 0.6), layout="constrained")
    axes = figure.add_subplot()
    # Hollow, because points may lie on top of one another.
    axes.scatter([means[point] for point in scores], list(scores.values()), facecolors="none", edgecolors=INK, s=22)
    marked = {**_marked(content), "label-tuned": labels.oracle.point}
    for index, ((name, point), style) in enumerate(zip(marked.items(), series(5)[1:], strict=True)):
        if point in scores and point in means:
            shape: dict[str, Any] = {
                "marker": style.marker,
                "edgecolors": style.color,
                "facecolors": "none",
                "linewidths": 1.8,
            }
            axes.scatter(means[point], scores[point], s=60 + 70 * index, label=f"{name} {point}", **shape)
    rho = labels.spearman.rho
    axes.set(xlabel="mean KL (nats)", ylabel=labels.metric)
    axes.set_title("no rank correlation defined" if rho is None else f"Spearman's rho {rho:.2f}")
    figure.legend(loc="outside lower center", ncols=1)
    return figure
