"""The content of `analysis.json`: every case's attention and scores, and how the two go together."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from lm_eval_ape.analysis.attention import OFFSETS, Attention
from lm_eval_ape.analysis.correlation import Floats, correlate
from lm_eval_ape.analysis.heads import heads_part
from lm_eval_ape.analysis.measure import Looks
from lm_eval_ape.analysis.options import Options
from lm_eval_ape.analysis.sweep import Case
from lm_eval_ape.artefacts.analysis_file import ALL, SCHEMA_VERSION
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.identity import versions
from lm_eval_ape.attention.row_statistics import ROLES
from lm_eval_ape.settings.strategy import SETTINGS


def make_document(
    options: Options,
    observed: Sequence[tuple[Case, Looks]],
    board: Board | None,
    facts: Mapping[str, Any],
    command: Sequence[str],
) -> dict[str, Any]:
    """Put an analysis together.

    Args:
        options: What was asked for.
        observed: Every case with its attention.
        board: Their scores (see `comparison.board.make_board`); None where nothing was scored.
        facts: The model and the device.
        command: What was called.
    """
    tasks = list(dict.fromkeys(task for _, looks in observed for task, _ in looks))
    cases = [_case(case, looks, tasks, board) for case, looks in observed]
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "versions": versions(),
        **facts,
        "tasks": {name: board.tasks[name].as_json() if board else {} for name in tasks},
        "offsets": list(OFFSETS),
        "statistics": {"resamples": options.resamples, "seed": options.seed},
        "cases": cases,
        "heads": heads_part([case for case, _ in observed], cases),
        "correlations": _correlations(options, observed, tasks, board) if board else {},
    }


def _case(case: Case, looks: Looks, tasks: Sequence[str], board: Board | None) -> dict[str, Any]:
    row = next((row for row in board.rows if row.label == case.spec.label), None) if board else None
    return {
        "label": case.spec.label,
        "family": case.family,
        "chunks": case.chunks,
        "settings": {name: getattr(case.spec.settings, name) for name in SETTINGS},
        "tasks": {
            task: {
                **_mean([look for (name, _), look in looks.items() if name == task]),
                "score": {"score": row.tasks[task].score, "stderr": row.tasks[task].stderr}
                if row and task in row.tasks
                else None,
            }
            for task in tasks
        },
    }


def _mean(looks: Sequence[Attention]) -> dict[str, Any]:
    """Means over documents of what is by layer and head, and of each whole."""
    roles = list(dict.fromkeys(role for look in looks for role in look.key_norms))
    entropies = np.array([np.mean(look.entropy) for look in looks])
    return {
        "documents": len(looks),
        "mean_chunks": float(np.mean([look.chunks for look in looks])),
        "query_tokens": float(np.mean([look.tokens for look in looks])),
        "entropy": float(entropies.mean()),
        "entropy_stderr": float(entropies.std(ddof=1) / np.sqrt(len(looks))) if len(looks) > 1 else None,
        "logit": float(np.mean([look.logit for look in looks])),
        "mass": {role: float(np.mean([look.mass[role] for look in looks])) for role in ROLES},
        "by_head": {
            "entropy": np.mean([look.entropy for look in looks], axis=0).tolist(),
            "logit": np.mean([look.logit for look in looks], axis=0).tolist(),
            "mass": {role: np.mean([look.mass[role] for look in looks], axis=0).tolist() for role in ROLES},
        },
        "key_norms": {
            role: _norms([look.key_norms[role] for look in looks if role in look.key_norms]) for role in roles
        },
    }


def _norms(norms: Sequence[Sequence[Sequence[float | None]]]) -> list[list[float | None]]:
    """Mean over documents of what is there; None where nothing is."""
    values = np.array(norms, dtype=float)
    counts = np.isfinite(values).sum(0)
    sums = np.nansum(values, axis=0)
    return [
        [float(total / count) if count else None for total, count in zip(*row, strict=True)]
        for row in zip(sums, counts, strict=True)
    ]


def _correlations(
    options: Options, observed: Sequence[tuple[Case, Looks]], tasks: Sequence[str], board: Board
) -> dict[str, Any]:
    """Of entropy and score by task, over all cases and over those of each strategy with the sequential model.

    The documents are those whose attention was looked at in every case.
    """
    families = dict.fromkeys(case.family for case, _ in observed)
    groups = {ALL: [True] * len(observed)}
    groups |= {name: [case.family in (name, "sequential") for case, _ in observed] for name in families}
    found: dict[str, Any] = {}
    for task in tasks:
        pair = _aligned(task, observed, board)
        if pair is None:
            continue
        entropies, scores = pair
        found[task] = {
            "documents": len(entropies),
            "groups": {
                name: {
                    kind: correlate(
                        kind, entropies[:, own], scores[:, own], resamples=options.resamples, seed=options.seed
                    )._asdict()
                    for kind in ("pearson", "spearman")
                }
                for name, own in groups.items()
                if name == ALL or sum(own) > 2
            },
        }
    return found


def _aligned(task: str, observed: Sequence[tuple[Case, Looks]], board: Board) -> tuple[Floats, Floats] | None:
    """Entropies and scores, each `(documents, cases)`; None if no document has all of them."""
    samples = {sample.doc_id: sample.runs for sample in board.samples.get(task, ())}
    documents = [
        number
        for number, runs in samples.items()
        if all((task, number) in looks and case.spec.label in runs for case, looks in observed)
    ]
    if not documents:
        return None
    entropies = [[float(np.mean(looks[task, number].entropy)) for _, looks in observed] for number in documents]
    scores = [[samples[number][case.spec.label].score for case, _ in observed] for number in documents]
    return np.array(entropies), np.array(scores, dtype=float)
