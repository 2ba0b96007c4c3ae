"""An analysis as tables of text: attention and score of every case, and their correlation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from lm_eval_ape.artefacts.analysis import Analysis, Correlation
from lm_eval_ape.attention.row_statistics import ROLES
from lm_eval_ape.comparison.formats import drawn, made_by, markdown_table
from lm_eval_ape.comparison.tables import Table
from lm_eval_ape.display.escaping import csv_cell

CAPTION = (
    "Entropy of the query tokens' attention rows in nats, mean over layers, heads, tokens and documents, ± standard "
    "error over documents; |logit|: mean absolute attention logit; shares of the rows on prefix, context and query; "
    "score x100 ± standard error. One chunk is the sequential model."
)
CORRELATION = (
    "Over all cases, and over those of each strategy with the sequential model, on the documents whose attention was "
    "looked at; 95% interval over resamples of the documents; p as if cases were independent, which they are not."
)
RECOMPUTED = (
    "Entropy of the same rows over the chunks as they were encoded, and its mean change by recomputation, ± standard "
    "error over documents; share of each chunk's tokens that was recomputed, chunk by chunk, and of the tokens of "
    "later chunks by their offset from their chunk's start, range by range."
)
HEADS = (
    "Spearman's correlation over heads (or layers) of how far T and S moved with what the attention of {first} is like "
    "there: heads that read the context have a large share on it."
)


def tables(content: Analysis) -> list[Table]:
    """The analysis' tables."""
    found = [_cases(content)]
    if content.correlations:
        found.append(_correlations(content))
    if content.heads:
        found.append(_heads(content))
    if any(look.recomputed for case in content.cases for look in case.tasks.values()):
        found.append(_recomputed(content))
    return found


def _cases(content: Analysis) -> Table:
    headers = ["Tasks", "Strategy", "Chunks", "n", "Entropy", "Stderr", "|logit|"]
    headers += [role.capitalize() for role in ROLES] + ["Score", "Stderr of score"]
    rows = []
    for task in content.tasks:
        name = task
        for case in content.cases:
            look = case.tasks[task]
            cells = [name, case.label, f"{look.mean_chunks:.3g}", str(look.documents)]
            cells += [f"{look.entropy:.4f}", f"± {_number(look.entropy_stderr, 4)}", f"{look.logit:.3f}"]
            cells += [f"{share:.3f}" for share in look.mass.all]
            score = look.score
            cells += [f"{100 * score.score:.2f}", f"± {_number(score.stderr, 2, 100)}"] if score else ["", ""]
            rows.append(cells)
            # As in the harness's tables, a task is named once.
            name = ""
    return Table("Attention", CAPTION, headers, rows)


def _recomputed(content: Analysis) -> Table:
    """A row for each case that recomputes; offsets at which no chunk has a token are left out."""
    looks = [
        (task, case, recomputed)
        for task in content.tasks
        for case in content.cases
        if (recomputed := case.tasks[task].recomputed)
    ]
    starts = [0, *content.offsets]
    used = [place for place in range(len(starts)) if any(found.by_offset[place] is not None for *_, found in looks)]
    headers = ["Tasks", "Strategy", "Entropy without", "Change", "Stderr", "By chunk"]
    headers += [f"From {starts[place]}" for place in used]
    rows, named = [], ""
    for task, case, found in looks:
        # As in the harness's tables, a task is named once.
        name, named = "" if task == named else task, task
        cells = [name, case.label, f"{found.entropy_without:.4f}", f"{found.entropy_difference:+.4f}"]
        cells += [f"± {_number(found.entropy_difference_stderr, 4)}"]
        cells += [" ".join(f"{share:.0%}" for share in found.by_chunk)]
        shares = [found.by_offset[place] for place in used]
        rows.append([*cells, *("" if share is None else f"{share:.1%}" for share in shares)])
    return Table("Recomputed tokens", RECOMPUTED, headers, rows)


def _correlations(content: Analysis) -> Table:
    headers = ["Tasks", "Cases of", "Correlation", "Value", "95% interval", "p", "Cases", "Documents"]
    rows = []
    for task, found in content.correlations.items():
        name = task
        for group, correlations in found.groups.items():
            for kind, one in correlations.items():
                rows.append([name, group, kind, *_correlation(one), str(one.settings), str(found.documents)])
                name = ""
    return Table("Entropy and score", CORRELATION, headers, rows)


def _heads(content: Analysis) -> Table:
    rows = []
    for part in content.heads:
        name = part.label
        for task, found in part.goes_with.items():
            cells = ["none" if one.rho is None else f"{one.rho:+.3f} (p {one.p_value:.3f})" for one in found.all]
            rows.append([name, part.granularity, task, *cells])
            name = ""
    headers = ["Strategy", "Granularity", "Tasks", "Entropy", "|logit|", "Share on the context"]
    first = content.cases[0].label
    return Table("What a calibration moved", HEADS.format(first=first), headers, rows)


def _correlation(found: Correlation) -> list[str]:
    """Value, interval and p."""
    if found.value is None:
        return ["none: one of the two is the same for all", "", ""]
    ends = "" if found.low is None else f"[{found.low:+.3f}, {found.high:+.3f}]"
    return [f"{found.value:+.3f}", ends, f"{found.p_value:.3f}"]


def _number(value: float | None, digits: int, times: float = 1.0) -> str:
    return "N/A" if value is None else f"{times * value:.{digits}f}"


def show(content: Analysis, console: Console) -> None:
    """Print the tables."""
    for table in tables(content):
        console.print(drawn(table, {"Tasks", "Strategy", "Cases of", "Correlation"}))


def markdown(content: Analysis) -> str:
    """The tables as Markdown, written as the harness writes its own."""
    return "\n".join(
        [
            *map(markdown_table, tables(content)),
            made_by(content.command, content.versions["lm_eval_ape"], content.created),
        ]
    )


def comma_separated(content: Analysis) -> str:
    """One line for each case, task, layer and head, with unrounded values."""
    buffer = io.StringIO()
    lines = list(_lines(content))
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _lines(content: Analysis) -> Iterator[dict[str, Any]]:
    for case in content.cases:
        for task, look in case.tasks.items():
            score = look.score.score if look.score else None
            for layer, heads in enumerate(look.by_head.entropy):
                for head, entropy in enumerate(heads):
                    yield {
                        "task": csv_cell(task),
                        "strategy": csv_cell(case.label),
                        "chunks": case.chunks,
                        "layer": layer,
                        "head": head,
                        "entropy": entropy,
                        "logit": look.by_head.logit[layer][head],
                        **{f"{role}_mass": getattr(look.by_head.mass, role)[layer][head] for role in ROLES},
                        "score": score,
                    }
