"""A board as tables of text: scores and differences, answers' likelihoods, costs, and scores by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lm_eval_ape.artefacts.board import Board, Difference, KeptTokens, Middle, Row, Score
from lm_eval_ape.harness.specs import changed, temperature_and_scale

BETTER, WORSE, NOISE = "▲", "▼", "≈"
LEGEND = (
    "{scores} ± standard error; difference from {baseline} with its paired bootstrap 95% interval and p-value; "
    "kept: share of its score. " + f"{BETTER} better, {WORSE} worse, {NOISE} within noise."
)
SCALED, UNSCALED = "Scores x100", "losses (↓) as they are"
COSTS = (
    "Median seconds of a request: prefill up to the first new token, and in all; of a scored continuation or text. New "
    "tokens a second after the first one. Mean chunks and tokens of a request, and mean share of its context's tokens "
    "that was recomputed; what chooses them is in the prefill."
)
KL = (
    " KL: mean divergence of next-token distributions from the sequential model's in nats, over up to {num_tokens} of "
    "its own greedy tokens."
)
ANSWERS = (
    "Mean log-likelihood of a document's reference answer in nats, the sum over its tokens (of several answers the "
    "likeliest), ± standard error, and the mean number of its tokens; a higher one is better."
)
_DIFFERENCE = ("Difference", "95% interval", "p", "")
_GIB = 2**30


class Table(NamedTuple):
    """A table of text; the first column is to the left, all others to the right."""

    title: str
    caption: str
    headers: list[str]
    rows: list[list[str]]


def tables(board: Board) -> list[Table]:
    """The board's tables: scores, answers' likelihoods and costs where they were measured, scores by length."""
    return [*line_tables(board), *([_lengths(board)] if len(board.lengths.buckets) > 1 else [])]


def line_tables(board: Board) -> list[Table]:
    """The tables in which a line is a row of the board, in a task or in all: all but scores by length."""
    found = [_scores(board)]
    if any(score.answer_nats for row in board.rows for score in row.scores):
        found.append(_answers(board))
    if any(row.costs for row in board.rows):
        found.append(_costs(board))
    return found


class ScorePart(NamedTuple):
    """A task, or the average: its facts, and each row's score."""

    name: str
    metric: str
    documents: int
    higher_is_better: bool
    tasks: Sequence[str]
    scores: Sequence[Score | None]


def _scores(board: Board) -> Table:
    base = board.baseline
    headers = ["Tasks", "Strategy", "Settings", "n", "Metric", "Value", "Stderr"]
    headers += [*_DIFFERENCE, "Kept"] if base else []
    measured = next((row.kl for row in board.rows if row.kl), None)
    headers += ["KL"] if measured else []
    common = _common_settings(board)
    rows = []
    for part in score_parts(board):
        name, metric = part.name, f"{part.metric} {'↑' if part.higher_is_better else '↓'}".strip()
        for row, score in zip(board.rows, part.scores, strict=True):
            if score is None:
                continue
            cells = [name, row.label, settings_words(row, common), str(part.documents), metric]
            higher = part.higher_is_better
            cells += [shown(score.score, higher), f"± {shown(score.stderr, higher)}"]
            cells += [*_difference(score.difference, higher, share=higher), _kept(score)] if base else []
            rows.append([*cells, *([_divergence(row, score)] if measured else [])])
            # As in the harness's tables, a task is named once.
            name = ""
    unit = _unit([fact.higher_is_better for fact in board.tasks.values()])
    caption = LEGEND.format(baseline=base, scores=unit) if base else f"{unit} ± standard error."
    caption += KL.format(num_tokens=measured.num_tokens) if measured else ""
    caption += f" All that cut the context: {', '.join(common)}." if common else ""
    return Table("Scores", caption, headers, rows)


def score_parts(board: Board) -> list[ScorePart]:
    """The average, where it is one of several tasks, and each task."""
    return [*_average(board), *_tasks(board)]


def _tasks(board: Board) -> Iterator[ScorePart]:
    for task, fact in board.tasks.items():
        scores = [row.tasks.get(task) for row in board.rows]
        yield ScorePart(task, fact.metric, fact.documents, fact.higher_is_better, [task], scores)


def _average(board: Board) -> Iterator[ScorePart]:
    averages = [row.average for row in board.rows]
    tasks = averages[0].tasks if averages[0] else []
    if len(tasks) < 2:
        return
    facts = [board.tasks[task] for task in tasks]
    metrics = {fact.metric for fact in facts}
    documents = sum(fact.documents for fact in facts)
    metric = metrics.pop() if len(metrics) == 1 else ""
    yield ScorePart(f"average of {len(tasks)}", metric, documents, facts[0].higher_is_better, tasks, averages)


def _common_settings(board: Board) -> list[str]:
    """The settings shared by all rows that cut contexts."""
    parallel = [row.settings for row in board.rows if row.settings and not row.sequential]
    lists = [changed(settings) for settings in parallel]
    return [word for word in lists[0] if all(word in words for words in lists)] if lists else []


def settings_words(row: Row, common: Sequence[str] = ()) -> str:
    """A row's settings, without the shared ones."""
    if not row.settings:
        return str(row.config.get("model"))
    own = [word for word in changed(row.settings) if word not in common]
    return " ".join([temperature_and_scale(row.settings), *own])


def _kept(score: Score) -> str:
    return "" if score.kept is None else f"{100 * score.kept:.0f}%"


def _difference(found: Difference | None, higher: bool, *, share: bool) -> list[str]:
    """Cells of a difference, for a metric for which higher (or not) is better, and which is a share of 1 (or not)."""
    if found is None:
        return ["", "", "", ""]
    ends = "" if found.low is None else f"[{shown(found.low, share, '+')}, {shown(found.high, share, '+')}]"
    p = f"{found.p_value:.3f}" if found.p_value >= 0.001 else "<0.001"
    mark = NOISE if found.within_noise else BETTER if (found.mean > 0) == higher else WORSE
    return [shown(found.mean, share, "+"), ends, p, mark]


def _divergence(row: Row, score: Score) -> str:
    if score.kl:
        return f"{score.kl.mean:.3g}"
    # The sequential model is the teacher itself.
    return "0" if row.sequential else ""


def _answers(board: Board) -> Table:
    """How likely the reference answers are, with differences from the baseline."""
    base = board.baseline
    headers = ["Tasks", "Strategy", "n", "Tokens", "Nats", "Stderr", *(_DIFFERENCE if base else ())]
    rows = []
    for part in score_parts(board):
        name = part.name
        for row, score in zip(board.rows, part.scores, strict=True):
            found = score.answer_nats if score else None
            if found is None:
                continue
            cells = [name, row.label, str(found.documents), f"{found.tokens:.1f}"]
            cells += [shown(found.mean, False), f"± {shown(found.stderr, False)}"]
            rows.append([*cells, *(_difference(found.difference, True, share=False) if base else [])])
            name = ""
    return Table("Reference answers", ANSWERS, headers, rows)


def _costs(board: Board) -> Table:
    headers = [
        "Strategy",
        "Prefill s",
        "Total s",
        "New tokens/s",
        "Scoring s",
        "Peak GiB",
        "Chunks",
        "Tokens",
        "Dropped",
        "Device",
    ]
    rows = []
    for row in board.rows:
        cost = row.costs
        if cost is None:
            continue
        cells = [row.label, _number(_median(cost.prefill_seconds), "{:.3g}")]
        cells += [_number(_median(cost.seconds), "{:.3g}")]
        rate = cost.decode_tokens_per_second
        cells += ["" if rate is None else f"{rate:.1f}", _number(_median(cost.scoring_seconds), "{:.3g}")]
        cells += [f"{cost.peak_memory_bytes / _GIB:.2f}"]
        cells += [
            _number(_mean(cost.chunks), "{:.1f}"),
            _number(_mean(cost.tokens), "{:.0f}"),
        ]
        rows.append([*cells, str(cost.dropped_tokens), str(row.device)])
    costs_of = [row.costs for row in board.rows if row.costs]
    if any(cost.recomputed for cost in costs_of):
        headers += ["Recomputed"]
        for cells, cost in zip(rows, costs_of, strict=True):
            cells.append(_number(_mean(cost.recomputed), "{:.1%}"))
    whole = next((row.costs.prefill_seconds for row in board.rows if row.costs and row.sequential), None)
    if whole and len(costs_of) > 1:
        headers.append("Prefill of sequential's")
        for cells, cost in zip(rows, costs_of, strict=True):
            prefill = _median(cost.prefill_seconds)
            cells.append("" if prefill is None else f"{prefill / whole.median:.0%}")
    if any(row.costs and row.costs.kv_cache for row in board.rows):
        headers.append("Tokens found encoded")
        for cells, cost in zip(rows, costs_of, strict=True):
            cells.append(_found(cost.kv_cache))
    kinds = sorted({row.costs.peak_memory_of for row in board.rows if row.costs})
    return Table("Costs", f"{COSTS} Peak memory: {', '.join(kinds)}.", headers, rows)


def _found(kept: KeptTokens | None) -> str:
    """Share of prefix and chunk tokens found in the store of encoded chunks."""
    asked = kept.hit_tokens + kept.miss_tokens if kept else 0
    return f"{kept.hit_tokens / asked:.0%}" if kept and asked else ""


def _lengths(board: Board) -> Table:
    lengths = board.lengths
    headers = ["Strategy", *(f"{b.start}-{b.below - 1} (n={b.documents})" for b in lengths.buckets)]
    directions = [fact.higher_is_better for fact in board.tasks.values()]
    higher = any(directions)
    rows = []
    for label, scores in lengths.rows.items():
        cells = [f"{shown(score.mean, higher)} ± {shown(score.stderr, higher)}" for score in scores]
        rows.append([label, *cells])
    unit = "Mean score x100" if higher else "Mean loss"
    caption = f"{unit} ± standard error over all documents of the tasks that all rows have."
    return Table(f"Scores by length of the prompt, {lengths.unit}", caption, headers, rows)


def _unit(directions: Sequence[bool]) -> str:
    """What the numbers of metrics for which higher (or not) is better are, in words."""
    if all(directions):
        return SCALED
    return f"{SCALED}, {UNSCALED}," if any(directions) else "Losses"


def shown(value: float | None, higher_is_better: bool, sign: str = "") -> str:
    """A share of 1 as a percentage; a loss, which has a unit of its own, as it is."""
    if value is None:
        return "N/A"
    return f"{100 * value:{sign}.2f}" if higher_is_better else f"{value:{sign}.4f}"


def _mean(values: Middle | None) -> float | None:
    return values.mean if values else None


def _median(values: Middle | None) -> float | None:
    return values.median if values else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
