"""Rows of a board that recompute some of their contexts' tokens: which belong together, and what is their control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ape.artefacts.board import Answer, Board, Difference, Row, Sample
from lm_eval_ape.comparison.statistics import paired
from lm_eval_ape.harness.specs import typed
from lm_eval_ape.settings.layers import ALL_LAYERS
from lm_eval_ape.settings.strategy import DEFAULTS, SETTINGS

RANDOM = "random"
NOTHING = "nothing recomputed"
# What rows of one family may differ in. Strategies and presets are names for other settings, and these are what counts.
_FREE = ("strategy", "preset", "recompute", "recompute_by", "recompute_layers", "recompute_seed", "attn_backend")
_DIGESTS = ("context_table_sha256", "factors_sha256")
# Most resamples of a difference from the control, of which a report makes many more than a board does.
RESAMPLES = 999


class Line(NamedTuple):
    """Rows that differ only in how many tokens they recompute, and in the seed.

    Attributes:
        selector: What chooses the tokens, in words.
        family: What sets the line apart from those of other settings, in words; empty where all rows have the same.
        rows: The rows, by how many tokens they recompute.
        start: Rows with the same settings that recompute nothing.
        controls: Rows with the same settings that choose at random.
    """

    selector: str
    family: str
    rows: Sequence[Row]
    start: Sequence[Row]
    controls: Sequence[Row]

    @property
    def name(self) -> str:
        """Selector and family."""
        return f"{self.selector} ({self.family})" if self.family else self.selector

    def controls_of(self, row: Row) -> list[Row]:
        """Rows that recompute as many tokens as one of the line, chosen at random; none for these themselves."""
        if self.selector in (RANDOM, NOTHING):
            return []
        return [control for control in self.controls if amount(control) == amount(row)]


def amount(row: Row) -> float:
    """How much a row was asked to recompute: a share of the context's tokens up to 1, a number of tokens above."""
    return float((row.settings or {}).get("recompute", 0.0))


def share(row: Row) -> float | None:
    """The mean share of the contexts' tokens that a row recomputed; None where only a number of tokens is known."""
    if row.costs and row.costs.recomputed:
        return row.costs.recomputed.mean
    asked = amount(row)
    return asked if asked <= 1 else None


def seed(row: Row) -> int:
    """What a row that chooses at random drew its tokens with."""
    return int((row.settings or {}).get("recompute_seed", 0))


def lines(board: Board) -> list[Line]:
    """The rows that recompute, line by line, each family's after its line of rows that recompute nothing."""
    families: list[tuple[dict[str, Any], list[Row]]] = []
    for row in board.rows:
        if row.settings is None or row.sequential:
            continue
        key = _family(row.model, row.settings)
        rows = next((rows for other, rows in families if other == key), None)
        if rows is None:
            families.append((key, [row]))
        else:
            rows.append(row)
    families = [(key, rows) for key, rows in families if any(map(amount, rows))]
    keys = [key for key, _ in families]
    return [line for key, rows in families for line in _lines(rows, _words(key, keys))]


def _family(model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that rows of one line have in common: T and S among it, and what older versions did not write down."""
    common = {name: settings.get(name, DEFAULTS[name]) for name in SETTINGS if name not in _FREE}
    return {"model": model, **common, **{name: str(settings[name])[:8] for name in _DIGESTS if settings.get(name)}}


def _words(key: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> str:
    """What not all families have in common."""
    return " ".join(
        f"{name}={typed(value)}" for name, value in key.items() if any(other.get(name) != value for other in keys)
    )


def _lines(rows: Sequence[Row], family: str) -> list[Line]:
    start = [row for row in rows if not amount(row)]
    found: dict[str, list[Row]] = {NOTHING: start} if start else {}
    for row in rows:
        if amount(row):
            found.setdefault(_selector(row), []).append(row)
    return [
        Line(
            selector,
            family,
            sorted(chosen, key=lambda row: (share(row) or 0.0, seed(row))),
            [] if selector == NOTHING else start,
            found.get(RANDOM, []),
        )
        for selector, chosen in found.items()
    ]


def _selector(row: Row) -> str:
    settings = row.settings or {}
    by = str(settings.get("recompute_by", DEFAULTS["recompute_by"]))
    layers = settings.get("recompute_layers", ALL_LAYERS)
    return by if layers == ALL_LAYERS else f"{by}, layers {layers}"


def difference(
    board: Board, tasks: Sequence[str], row: Row, controls: Sequence[Row], value: Callable[[Answer], float | None]
) -> Difference | None:
    """How much more a row has of something than its controls have on average, paired over documents.

    Args:
        board: The board of all of them.
        tasks: Where; of several, the mean of their means.
        row: The row.
        controls: At least one row.
        value: What is compared of what a row said to a document.

    Returns:
        None where a task has no document with the values of all rows.
    """
    labels = [row.label, *(control.label for control in controls)]
    found = [_complete(board.samples.get(task, ()), labels, value) for task in tasks]
    if not all(map(len, found)):
        return None
    differences = [values[:, 0] - values[:, 1:].mean(axis=1) for values in found]
    chance = board.statistics
    return paired(*differences, resamples=min(chance.resamples, RESAMPLES), seed=chance.seed)


def _complete(
    samples: Sequence[Sample], labels: Sequence[str], value: Callable[[Answer], float | None]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values of the documents for which every row has one, `(documents, rows)`."""
    rows = []
    for sample in samples:
        values = [value(sample.runs[label]) if label in sample.runs else None for label in labels]
        if None not in values:
            rows.append(values)
    return np.array(rows, dtype=float)


def score_of(answer: Answer) -> float | None:
    """A document's score."""
    return answer.score


def kl_of(answer: Answer) -> float | None:
    """A document's KL in nats: the mean over its prompts of their tokens' means."""
    means = [fmean(prompt.nats) for prompt in answer.kl or () if prompt.nats]
    return fmean(means) if means else None
