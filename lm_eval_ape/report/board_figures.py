"""Figures of a board: score and time by length, KL against score, and both against the share that is recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm_eval_ape.artefacts.board import Answer, Board, MeanKL, Row
from lm_eval_ape.comparison.statistics import Estimate
from lm_eval_ape.display.plot_style import series, styled
from lm_eval_ape.report.recomputation import RANDOM, Line, amount, seed, share

_WIDTH, _HEIGHT, _COLUMNS = 5.4, 3.6, 3
# Most bins of documents by length.
_BINS = 6
# Half of a 95% interval, in standard errors.
NORMAL_95 = 1.96
TIMES = {
    "prefill_seconds": "prefill (up to the first new token)",
    "seconds": "in all",
    "scoring": "scored continuations and texts",
}


class Times(NamedTuple):
    """Seconds of one row's documents.

    Attributes:
        lengths: Of their prompts, `(documents,)`.
        seconds: Of all their requests, `(documents,)`.
    """

    lengths: np.ndarray
    seconds: np.ndarray


class Panel(NamedTuple):
    """What is drawn of every row in one panel.

    Attributes:
        title: Of what.
        quantity: What the values are, with their unit.
        values: By the row's label.
    """

    title: str
    quantity: str
    values: Mapping[str, Estimate]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.6), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _legend(figure: Figure, axes: Axes, count: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(count, 4), handlelength=3)


@styled()
def score_by_length(board: Board) -> Figure:
    """Each row's mean score x100 with its standard error, from one bucket of lengths to the next."""
    lengths = board.lengths
    buckets, rows = lengths.buckets, lengths.rows
    figure, (axes,) = _panels(1)
    figure.set_figwidth(2 * _WIDTH)
    places = np.arange(len(buckets))
    shifts = np.linspace(-0.18, 0.18, len(rows)) if len(rows) > 1 else [0.0]
    for (label, scores), style, shift in zip(rows.items(), series(len(rows)), shifts, strict=True):
        means = [100 * score.mean for score in scores]
        errors = [100 * (score.stderr or 0) for score in scores]
        axes.errorbar(places + shift, means, errors, **style.options, capsize=3, label=label)
    names = [f"{bucket.start}-{bucket.below - 1}\nn={bucket.documents}" for bucket in buckets]
    axes.set_xticks(places, names)
    axes.set(xlabel=f"length of the prompt, {lengths.unit}", ylabel="score x100", xlim=(-0.5, len(buckets) - 0.5))
    _legend(figure, axes, len(rows))
    return figure


def times(board: Board) -> dict[str, dict[str, Times]]:
    """Seconds of every row's documents, by what took them; rows that were not measured have none."""
    found: dict[str, dict[str, Times]] = {}
    samples = [sample for task in board.samples.values() for sample in task]
    for kind in TIMES:
        for row in board.rows:
            pairs = [
                (sample.length, seconds)
                for sample in samples
                if (seconds := _seconds(sample.runs.get(row.label), kind)) is not None
            ]
            if pairs:
                found.setdefault(kind, {})[row.label] = Times(*np.array(pairs, dtype=float).T)
    return found


def _seconds(run: Answer | None, kind: str) -> float | None:
    requests = (run and run.requests) or ()
    name = "seconds" if kind == "scoring" else kind
    values = [getattr(request, name) for request in requests if (request.new_tokens is None) == (kind == "scoring")]
    known = [value for value in values if value is not None]
    return sum(known) if known else None


@styled()
def time_by_length(board: Board, found: Mapping[str, Mapping[str, Times]]) -> Figure:
    """Median seconds of a document against its length, with quartiles, in up to six bins of as many documents."""
    labels = [row.label for row in board.rows]
    styles = dict(zip(labels, series(len(labels)), strict=True))
    figure, panels = _panels(len(found))
    for axes, (kind, rows) in zip(panels, found.items(), strict=True):
        for label, measured in rows.items():
            parts = np.array_split(np.argsort(measured.lengths), min(_BINS, len(np.unique(measured.lengths))))
            middle = [np.median(measured.lengths[part]) for part in parts]
            low, half, high = np.array([np.quantile(measured.seconds[part], (0.25, 0.5, 0.75)) for part in parts]).T
            ends = [half - low, high - half]
            axes.errorbar(middle, half, ends, **styles[label].options, capsize=3, label=label)
        axes.set(xlabel=f"length of the prompt, {board.lengths.unit}", ylabel="seconds", title=TIMES[kind])
        axes.set_ylim(bottom=0)
    _legend(figure, panels[0], len(labels))
    return figure


def with_kl(board: Board) -> list[str]:
    """Tasks in which a KL was measured."""
    return [task for task in board.tasks if any(task in row.tasks and row.tasks[task].kl for row in board.rows)]


@styled()
def kl_and_score(board: Board, tasks: Sequence[str]) -> Figure:
    """Each row's mean KL against its mean score x100, with standard errors, a panel a task."""
    rows = board.rows
    figure, panels = _panels(len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        for row, style in zip(rows, series(len(rows)), strict=True):
            score = row.tasks.get(task)
            # The sequential model is the teacher itself.
            kl = score and (score.kl or (MeanKL(mean=0.0, stderr=0.0) if row.sequential else None))
            if not score or not kl:
                continue
            errors: dict[str, Any] = {"xerr": kl.stderr or 0, "yerr": 100 * (score.stderr or 0)}
            # Hollow, because strategies may lie on top of one another.
            shape: dict[str, Any] = {
                "color": style.color,
                "marker": style.marker,
                "linestyle": "none",
                "markerfacecolor": "none",
            }
            axes.errorbar(kl.mean, 100 * score.score, **errors, **shape, markersize=9, capsize=3, label=row.label)
        axes.set(xlabel="mean KL from the sequential model (nats)", ylabel=f"{board.tasks[task].metric} x100")
        axes.set_title(task)
    _legend(figure, panels[0], len(rows))
    return figure


@styled()
def by_recomputed_share(lines: Sequence[Line], panels: Sequence[Panel]) -> Figure:
    """Means with 95% intervals against the share of tokens recomputed, a line a selector, from where nothing is."""
    figure, places = _panels(len(panels))
    for axes, panel in zip(places, panels, strict=True):
        for line, style in zip(lines, series(len(lines)), strict=True):
            points = _points(line.rows, panel)
            path = _through([*_points(line.start, panel), *points])
            # Points of several seeds lie beside the line: it has no markers but in the legend.
            axes.plot(*path.T, **style.options, markerfacecolor="none", markevery=[], label=line.name)
            for row, place, value in points:
                error = NORMAL_95 * (value.stderr or 0)
                # Hollow, because selectors may lie on top of one another.
                shape: dict[str, Any] = {"color": style.color, "marker": style.marker, "markerfacecolor": "none"}
                axes.errorbar(place, value.mean, error, **shape, markersize=8, capsize=3)
                if line.selector == RANDOM and sum(amount(other) == amount(row) for other in line.rows) > 1:
                    axes.annotate(f"seed {seed(row)}", (place, value.mean), (7, 3), textcoords="offset points", size=8)
        axes.set(xlabel="share of the context's tokens recomputed, %", ylabel=panel.quantity, title=panel.title)
    _legend(figure, places[0], len(lines))
    return figure


def _points(rows: Sequence[Row], panel: Panel) -> list[tuple[Row, float, Estimate]]:
    """The rows that have a place in a panel, with their shares in percent and their values."""
    return [
        (row, 100 * place, panel.values[row.label])
        for row in rows
        if row.label in panel.values and (place := share(row)) is not None
    ]


def _through(points: Sequence[tuple[Row, float, Estimate]]) -> np.ndarray:
    """Means of the points of each amount, ascending, `(amounts, 2)`."""
    ordered = sorted(points, key=lambda point: amount(point[0]))
    groups = [list(group) for _, group in groupby(ordered, lambda point: amount(point[0]))]
    means = [np.mean([(place, value.mean) for _, place, value in group], axis=0) for group in groups]
    return np.array(sorted(map(tuple, means))).reshape(-1, 2)
