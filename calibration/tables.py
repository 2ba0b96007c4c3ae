"""A calibration in tables, for the person who runs it (on stderr)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lm_eval_ape.artefacts.calibration import Calibration, Entropy, Unseen
from lm_eval_ape.artefacts.document import WithPoint
from lm_eval_ape.artefacts.estimates import Difference, Rank, SignalRank
from lm_eval_ape.artefacts.frontier import Frontier
from lm_eval_ape.artefacts.gradient_fit import Gradient
from lm_eval_ape.artefacts.moved_heads import moved
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.display.escaping import terminal

NAMES: Mapping[str, str] = {
    "chosen": "chosen by KL",
    "temperature_only": "T only",
    "scale_only": "S only",
    "default": "APE's default (0.9, 0.9)",
    "neutral": "untuned (1, 1)",
    "start": "where the gradient started",
    "refused": "finest fit, not returned",
    "entropy": "chosen by attention entropy",
    "label_tuned": "label-tuned",
}
_WORDS: Mapping[str, str] = {
    "model": "one T and S for the model",
    "layer": "T and S of each layer",
    "head": "T and S of each head",
}
WIDTH = 140
# Heads that the terminal lists; the file has all.
MOVED = 10
RIVALS: Mapping[str, Point] = {"default": DEFAULT, "neutral": NEUTRAL}


def show(content: Calibration, console: Console | None = None) -> None:
    """Print what a calibration file says.

    Args:
        content: The file's content.
        console: Where to; stderr if None.
    """
    if console is None:
        # A file or a pipe has no width of its own, and rich would take 80.
        console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
    gradient = content.gradient
    if content.frontier:
        console.print(candidates(content.frontier, content.chosen_by))
        for line in frontier_sentences(content.frontier, content.chosen_by):
            console.print(terminal(line), markup=False, highlight=False, soft_wrap=True)
    if len(content.grid.points) > 2 or not gradient:
        console.print(_surface(content))
        for line in sentences(content):
            console.print(terminal(line), markup=False, highlight=False, soft_wrap=True)
    if gradient:
        if not gradient.at_start:
            console.print(_moved(gradient))
        for line in gradient_sentences(gradient):
            console.print(terminal(line), markup=False, highlight=False, soft_wrap=True)
    if content.test:
        console.print(_test(content.test, content.metric))


HEADERS = ("encoding", "T, S", "cost", "encoding s", "{}, 95%", "more than chosen, 95%", "chosen in", "")
# The widest, which the report has room for.
_REPORT_ONLY = HEADERS.index("more than chosen, 95%")


def candidates(frontier: Frontier, chosen_by: str) -> RichTable:
    """A search's candidates, the cheapest first.

    Args:
        frontier: What the search found.
        chosen_by: What chose, in words.
    """
    seconds = frontier.sequential_seconds
    takes = "" if seconds is None else f"; reading a prompt takes the sequential model {seconds:.3g} s"
    table = RichTable(
        title=f"{len(frontier.candidates)} encodings{takes}",
        caption="cost: operations up to the first new token, share of the sequential model's; *: no other encoding is "
        "both cheaper and closer; encoding s: of a prompt, without its query, where its chunks "
        "had not been kept",
    )
    kept = [number for number in range(len(HEADERS)) if number != _REPORT_ONLY]
    for number in kept:
        first_or_last = number in {0, len(HEADERS) - 1}
        table.add_column(HEADERS[number].format(chosen_by), justify="left" if first_or_last else "right")
    for row in rows_of(frontier):
        cells = [Text(terminal(row[number])) for number in kept]
        table.add_row(*cells, style="bold green" if row[0] == frontier.chosen else None)
    return table


def rows_of(frontier: Frontier) -> list[list[str]]:
    """A search's candidates as cells, the cheapest first."""
    rows = []
    for one in sorted(frontier.candidates, key=lambda one: (one.share, one.best.value if one.best else 0.0)):
        best, chosen = one.best, one.name == frontier.chosen
        about = ["chosen"] if chosen else []
        about += [f"left out after {one.samples}"] if one.dropped else []
        about += [] if one.score is None else [f"score {one.score:.4g}"]
        rows.append(
            [
                one.name,
                f"{best.attn_temperature:g}, {best.attn_scale:g}" if best else "-",
                f"{one.share:.3f}{'*' if one.frontier else ' '}",
                "-" if one.seconds is None else f"{one.seconds:.3g}",
                f"{best.value:.3g} [{best.interval.low:.3g}, {best.interval.high:.3g}]" if best else "-",
                interval(best.more_than_chosen) if best and not chosen else "-",
                f"{one.share_of_resamples:.0%}",
                ", ".join(about),
            ]
        )
    return rows


def frontier_sentences(frontier: Frontier, chosen_by: str) -> list[str]:
    """What a search found, a sentence each."""
    rule, chosen = frontier.rule, frontier.choice
    rules = {
        "one_standard_error": f"the cheapest whose {chosen_by} is within one standard error of the least",
        "accept": f"the cheapest whose {chosen_by} is at most {rule.value or 0:g}",
        "budget": f"the least {chosen_by} of those that cost at most {rule.value or 0:g} of the sequential prefill",
    }
    lines = [
        f"Chosen: {chosen.name}, {rules[rule.name]}; {chosen.share_of_resamples:.1%} of resamples choose it too. It "
        f"takes {chosen.share:.3f} of the sequential model's operations up to the first new token."
    ]
    if frontier.measurements < frontier.of:
        lines.append(
            f"The race read {frontier.measurements} prompts in place of {frontier.of}, "
            f"{frontier.of / frontier.measurements:.1f} times fewer."
        )
    if frontier.prompts_left_out:
        lines.append(f"{frontier.prompts_left_out} prompts are left out, which not all encodings read alike.")
    lines += [f"{one.name} {one.dropped.reason}." for one in frontier.candidates if one.dropped]
    lines += [f"Not tried: {one.name}. {one.reason}" for one in frontier.left_out]
    lines += signal_sentences(frontier.signals, "encodings")
    return lines


def signal_sentences(ranks: Sequence[SignalRank], over: str) -> list[str]:
    """Which signal goes with the score, the strongest first, each averaged in its best way."""
    known = sorted((one for one in ranks if one.rho is not None), key=lambda one: -abs(one.rho or 0.0))
    best: dict[str, SignalRank] = {}
    for one in known:
        best.setdefault(one.signal, one)
    found = "; ".join(f"{one.signal} ({one.average}) {rank_sentence(one)}" for one in best.values())
    return [f"Spearman's rho of signals and score over {over}: {found}."] if found else []


def _surface(content: Calibration) -> RichTable:
    grid, choice = content.grid, content.choice
    table = RichTable(title=f"Mean KL over {len(content.samples)} samples (nats); rows T, columns S", show_lines=False)
    table.add_column("T \\ S", justify="right")
    means = grid.means
    asked = {point for point, own in zip(grid.points, grid.choosable, strict=True) if own}
    scales = sorted({scale for _, scale in means})
    for scale in scales:
        table.add_column(f"{scale:g}", justify="right")
    for temperature in sorted({temperature for temperature, _ in means}):
        cells = []
        for scale in scales:
            point = Point(temperature, scale)
            text = f"{means[point]:.4f}" if point in means else ""
            text = f"({text})" if text and point not in asked else text
            chosen = point == choice.point
            cells.append(f"[bold green]{text}*[/]" if chosen else text)
        table.add_row(f"{temperature:g}", *cells)
    if not all(grid.choosable):
        table.caption = "in brackets: measured beside the grid, not choosable"
    return table


def sentences(content: Calibration) -> list[str]:
    """What the numbers mean, a sentence each."""
    choice, stability, grid = content.choice, content.stability, content.grid
    by = "" if content.chosen_by == "mean KL" else f" by the least {content.chosen_by}"
    lines = [f"Chosen{by}: {_point(choice)}, mean KL {choice.mean_kl:.4g} nats."]
    if choice.ties:
        ties = ", ".join(f"({t:g}, {s:g})" for t, s in choice.ties)
        lines.append(f"As good: {ties}; of these the point nearest to (1, 1) is taken.")
    lines += [f"The minimum lies on the grid's edge: {edge}; extend the grid?" for edge in choice.edges]
    for name, one in (("temperature_only", choice.temperature_only), ("scale_only", choice.scale_only)):
        lines.append(f"{NAMES[name]}: {_point(one)}, mean KL {one.mean_kl:.4g}.")
    temperature, scale = choice.over_temperature, choice.over_scale
    ratio = "" if choice.range_ratio is None else f"; ratio {choice.range_ratio:.2f}"
    lines.append(
        f"KL ranges over T by {temperature.range:.4g} ({temperature.least:.4g} to {temperature.most:.4g}) and "
        f"over S by {scale.range:.4g} ({scale.least:.4g} to {scale.most:.4g}){ratio}. "
        f"This holds for T in {grid.temperatures} and S in {grid.scales}."
    )
    for letter, found in (("T", stability.temperature), ("S", stability.scale)):
        lines.append(
            f"{letter} in {stability.resamples} resamples: mode {found.mode:g}, 95% [{found.low:g}, "
            f"{found.high:g}], width {found.width:.2g}: {'stable' if found.stable else 'unstable'}."
        )
    for name, beat in (("default", stability.beats.default), ("neutral", stability.beats.neutral)):
        if choice.point == RIVALS[name]:
            continue
        lines.append(
            f"The chosen point beats {NAMES[name]} in {beat.positive:.1%} of resamples; KL less by "
            f"{beat.mean:.4g}, 95% [{beat.low:.4g}, {beat.high:.4g}]."
        )
    if entropy := content.entropy:
        lines += entropy_sentences(entropy)
    if labels := content.labels:
        oracle, spearman = labels.oracle, labels.spearman
        lines.append(f"Label-tuned: {_point(oracle)}, {labels.metric} {oracle.score:.4f} on calibration rows.")
        lines.append(f"Spearman's rho of KL and {labels.metric} over points: {rank_sentence(spearman)}.")
        lines += signal_sentences(labels.signals, "points")
    return lines


def entropy_sentences(entropy: Entropy) -> list[str]:
    """What the attention entropies say, a sentence each."""
    ends = min(entropy.mean_entropy), max(entropy.mean_entropy)
    return [
        f"Attention entropy: {entropy.teacher:.4g} nats in the sequential model, {ends[0]:.4g} to {ends[1]:.4g} at "
        f"the points; nearest, sample by sample, is {_point(entropy.choice)}, whose mean KL is "
        f"{entropy.choice.mean_kl:.4g}{' (this is the choice)' if entropy.chosen_by else ''}.",
        f"Spearman's rho of KL and the entropy's distance over points: {rank_sentence(entropy.spearman_with_kl)}.",
    ]


def gradient_sentences(gradient: Gradient) -> list[str]:
    """What the gradient found, a sentence each."""
    less = gradient.less_kl
    lines = _held_out_sentences(gradient) if gradient.levels else _validation_sentences(gradient)
    lines += [
        f"KL less than {NAMES[name]} by {interval(found)}, on all {len(gradient.kl)} samples of the calibration."
        for name, found in (("start", less.start), ("default", less.default), ("neutral", less.neutral))
        if not (name == "start" and gradient.at_start)
    ]
    bounds = set(map(_six, gradient.plan.bounds))
    at = [one for one in moved(gradient.factors, gradient.start) if {one.temperature, one.scale} & bounds]
    if at:
        lines.append(f"On a bound of {gradient.plan.bounds}: {'; '.join(one.name for one in at)}. Widen --bounds?")
    return lines


def _held_out_sentences(gradient: Gradient) -> list[str]:
    """Each level on samples that its fit did not see, and what that means for the result."""
    levels, taken = gradient.levels, gradient.taken
    lines = []
    for level in reversed(levels):
        if level.taken:
            verdict = "Returned."
        elif level.better:
            verdict = "Not returned, as a coarser or finer one is lower."
        else:
            verdict = "Refused: not better than the start beyond noise."
        lines.append(
            f"By gradient, {_WORDS[level.granularity]}, penalty {level.penalty}, {level.step} of "
            f"{len(level.training) - 1} steps: on {len(level.kl)} samples, each held out from the fit, KL "
            f"{level.start_kl:.4g} at the start and {level.mean_kl:.4g} after, less by {interval(level.less_kl)}; on "
            f"samples that it learned from {level.training[0]:.4g} to {level.training[level.step]:.4g}. {verdict}"
        )
    t, s = gradient.start
    if gradient.at_start:
        lines.append(
            "No fit is better than its start on samples that it did not see: the result is the start, "
            f"T={t:g}, S={s:g}. More samples may show a smaller gain."
        )
    elif taken and taken is not levels[-1]:
        lines.append(
            f"The result is {_WORDS[taken.granularity]}, not {_WORDS[levels[-1].granularity]}, from the start at "
            f"T={t:g}, S={s:g}."
        )
    return lines


def _validation_sentences(gradient: Gradient) -> list[str]:
    """What an older file says, whose fit was stopped by samples for validation."""
    step = gradient.step
    fitting, validation = len(gradient.fitting), len(gradient.validation)
    stop = f"{validation} samples for validation" if validation else "the fitting samples, as none are for validation"
    lines = [
        f"By gradient, granularity {gradient.granularity}: of {len(gradient.training) - 1} steps, {step} is best "
        f"on {stop}: KL {gradient.stopping[0]:.4g} to {gradient.stopping[step]:.4g}; on {fitting} fitting "
        f"samples {gradient.training[0]:.4g} to {gradient.training[step]:.4g}."
    ]
    if tried := gradient.held_out:
        means = ", ".join(f"{one.penalty}: {one.mean_kl:.4g}" for one in tried)
        lines.append(f"Penalty {gradient.penalty}, by held-out KL ({means}).")
    return lines


def _six(value: float) -> float:
    return round(value, 6)


def _moved(gradient: Gradient) -> RichTable:
    found = moved(gradient.factors, gradient.start)
    t, s = gradient.start
    table = RichTable(title=f"Moved most from (T={t:g}, S={s:g}): {min(len(found), MOVED)} of {len(found)}")
    for name in ("", "T", "S", "distance"):
        table.add_column(name, justify="left" if not name else "right")
    for one in found[:MOVED]:
        table.add_row(one.name, f"{one.temperature:.3f}", f"{one.scale:.3f}", f"{one.distance:.3f}")
    table.caption = "distance: length of the change of (log T, log S)"
    return table


def rank_sentence(found: Rank) -> str:
    """A rank correlation with its interval."""
    if found.rho is None:
        return f"none, as one of the two is the same for all {found.points} points"
    interval = "" if found.low is None else f", 95% [{found.low:.3f}, {found.high:.3f}]"
    if found.p_value is None:
        return f"{found.rho:.3f}{interval}, no p for {found.points} points"
    return f"{found.rho:.3f}{interval}, p = {found.p_value:.3f}, {found.points} points"


def _test(test: Unseen, metric: str | None) -> RichTable:
    table = RichTable(title=Text(terminal(f"On {test.samples} samples that the choice never saw: {_names(test)}")))
    for name in ("", "T", "S", "mean KL", "KL more than chosen [95%]"):
        table.add_column(name, justify="left" if not name else "right")
    if metric:
        table.add_column(metric, justify="right")
        table.add_column("less than chosen [95%]", justify="right")
    for row in test.rows:
        cells = [NAMES[row.name], *(f"{value:g}" for value in row.point), f"{row.mean_kl:.4f}"]
        itself = row.point == test.rows[0].point
        cells.append("-" if itself else interval(row.more_kl_than_chosen))
        if metric and row.score is not None and row.less_score_than_chosen is not None:
            cells += [f"{row.score:.4f}", "-" if itself else interval(row.less_score_than_chosen)]
        table.add_row(*cells)
    return table


def interval(found: Difference) -> str:
    """A difference with its 95% interval."""
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _names(part: Unseen) -> str:
    return ", ".join(task.task for task in part.tasks)


def _point(found: WithPoint) -> str:
    return f"T={found.attn_temperature:g}, S={found.attn_scale:g}"
