"""Figures of an analysis, after those of Zhang et al. (2024): what the number of chunks does, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lm_eval_ape.artefacts.analysis import ALL, Analysis, Case, Look
from lm_eval_ape.display import plot_style
from lm_eval_ape.display.plot_style import series, styled

_WIDTH, _HEIGHT, _COLUMNS = 5.0, 3.6, 3


def draw(content: Analysis, folder: Path) -> list[Path]:
    """Draw all figures that the content has data for, each as PNG and SVG.

    Args:
        content: Of `analysis.json`.
        folder: Where to write.

    Returns:
        The files.
    """
    return [path for name, figure in figures(content).items() for path in plot_style.save(figure, folder, name)]


def figures(content: Analysis) -> dict[str, Figure]:
    """All figures that the content has data for, by name."""
    found = {"entropy_by_head": entropy_by_head(content), "key_norms": key_norms(content)}
    if len({case.chunks for case in content.cases}) > 1:
        found["entropy_by_chunks"] = by_chunks(content, "entropy", "attention entropy (nats)")
    if content.correlations:
        found["entropy_and_score"] = entropy_and_score(content)
        if "entropy_by_chunks" in found:
            found["score_by_chunks"] = by_chunks(content, "score", "score x100")
    return found


def _panels(count: int, height: float = _HEIGHT) -> tuple[Figure, list[Axes]]:
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(_WIDTH * columns, height * rows + 0.6), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), handlelength=3)


def _families(content: Analysis) -> dict[str, list[Case]]:
    """The cases of each strategy; every one starts at one chunk, which is the sequential model at T=S=1."""
    found: dict[str, list[Case]] = {}
    for case in content.cases:
        found.setdefault(case.family, []).append(case)
    return found


@styled()
def by_chunks(content: Analysis, name: str, label: str) -> Figure:
    """Entropy or score of each strategy against the number of chunks (as their Figures 1 and 2)."""
    families = _families(content)
    figure, panels = _panels(len(content.tasks))
    for axes, task in zip(panels, content.tasks, strict=True):
        for (family, cases), style in zip(families.items(), series(len(families)), strict=True):
            places = [case.chunks or case.tasks[task].mean_chunks for case in cases]
            values, errors = zip(*(_value(case.tasks[task], name) for case in cases), strict=True)
            if family == "sequential":
                axes.axhline(values[0], color=style.color, linestyle=":", linewidth=1)
            axes.errorbar(places, values, errors, **style.options, capsize=3, label=family)
        axes.set_xscale("log", base=2)
        ticks = sorted({case.chunks for case in content.cases if case.chunks})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set(xlabel="chunks P", ylabel=label, title=task)
    _legend(figure, panels[0])
    return figure


def _value(look: Look, name: str) -> tuple[float, float]:
    if name == "entropy":
        return look.entropy, look.entropy_stderr or 0.0
    return _score(look), 100 * ((look.score and look.score.stderr) or 0.0)


def _score(look: Look) -> float:
    """Score x100, which every case has where there are correlations."""
    assert look.score is not None
    return 100 * look.score.score


@styled()
def entropy_and_score(content: Analysis) -> Figure:
    """Entropy against score, a point a case (as their Figure 3)."""
    families = _families(content)
    tasks = [task for task in content.tasks if task in content.correlations]
    figure, panels = _panels(len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        for (family, cases), style in zip(families.items(), series(len(families)), strict=True):
            looks = [case.tasks[task] for case in cases]
            axes.scatter(
                [look.entropy for look in looks],
                [_score(look) for look in looks],
                color=style.color,
                marker=style.marker,
                label=family,
            )
            for case, look in zip(cases, looks, strict=True):
                place = (look.entropy, _score(look))
                axes.annotate(f" {case.chunks or ''}", place, fontsize=8)
        pearson = content.correlations[task].groups[ALL]["pearson"].value
        title = task if pearson is None else f"{task}: Pearson's r {pearson:+.2f}"
        axes.set(xlabel="attention entropy (nats)", ylabel="score x100", title=title)
    _legend(figure, panels[0])
    return figure


@styled()
def entropy_by_head(content: Analysis) -> Figure:
    """Entropy of every layer and head: of the first case, and how much more each strategy's last case has."""
    task = next(iter(content.tasks))
    last = {case.family: case for case in content.cases}
    base, *others = [content.cases[0], *(case for case in last.values() if case is not content.cases[0])]
    figure, panels = _panels(1 + len(others))
    first = np.array(base.tasks[task].by_head.entropy)
    _heat(panels[0], first, f"{base.label}: entropy (nats)", plot_style.HEAT)
    differences = [np.array(case.tasks[task].by_head.entropy) - first for case in others]
    most = max((float(np.abs(change).max()) for change in differences), default=0.0) or 1.0
    for axes, case, change in zip(panels[1:], others, differences, strict=True):
        _heat(axes, change, f"{case.label} less {base.label}", "PuOr", (-most, most))
    return figure


def _heat(axes: Axes, values: Any, title: str, colors: str, ends: Sequence[float] | None = None) -> None:
    low, high = ends or (None, None)
    image = axes.imshow(values, cmap=colors, vmin=low, vmax=high, aspect="auto", origin="lower")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="head", ylabel="layer", title=title)
    axes.figure.colorbar(image, ax=axes)


@styled()
def key_norms(content: Analysis) -> Figure:
    """Mean key norm over layers against the offset in its chunk (as their Figure 5)."""
    tasks = list(content.tasks)
    last = {case.family: case for case in content.cases}
    starts = [0, *content.offsets]
    figure, panels = _panels(len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        longest = 0
        for case, style in zip(last.values(), series(len(last)), strict=True):
            norms = np.array(case.tasks[task].key_norms["context"], dtype=float)
            means = norms.mean(0)
            known = np.isfinite(means)
            places = np.arange(len(starts))[known]
            longest = max(longest, int(places[-1]))
            axes.plot(places, means[known], **style.options, label=case.label)
        ticks = range(longest + 1)
        axes.set_xticks(ticks, [str(starts[tick]) for tick in ticks], rotation=60, fontsize=8)
        axes.set(xlabel="offset in the chunk, tokens from", ylabel="mean key norm", title=task)
    _legend(figure, panels[0])
    return figure
