"""The content of `analysis.json`: every case's attention and scores, and how the two go together."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import zip_longest
from typing import Any

import numpy as np

from lm_eval_ape.analysis.attention import OFFSETS, Attention
from lm_eval_ape.analysis.correlation import Floats, correlate
from lm_eval_ape.analysis.heads import heads_part
from lm_eval_ape.analysis.measure import Looks
from lm_eval_ape.analysis.options import Options
from lm_eval_ape.analysis.sweep import Case
from lm_eval_ape.artefacts.analysis import (
    ALL,
    SCHEMA_VERSION,
    Analysis,
    ByHead,
    Correlation,
    Correlations,
    Look,
    Mass,
    MassTables,
    Model,
    Recomputed,
    Score,
    Statistics,
)
from lm_eval_ape.artefacts.analysis import Case as CasePart
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.identity import versions
from lm_eval_ape.attention.row_statistics import ROLES
from lm_eval_ape.settings.strategy import SETTINGS


def make_document(
    options: Options,
    observed: Sequence[tuple[Case, Looks]],
    board: Board | None,
    *,
    facts: Mapping[str, Any],
    device: str,
    command: Sequence[str],
) -> Analysis:
    """Put an analysis together.

    Args:
        options: What was asked for.
        observed: Every case with its attention.
        board: Their scores (see `comparison.board.make_board`); None where nothing was scored.
        facts: The model (see `harness.model_facts`).
        device: What it ran on, in words.
        command: What was called.
    """
    tasks = list(dict.fromkeys(task for _, looks in observed for task, _ in looks))
    cases = [_case(case, looks, tasks, board) for case, looks in observed]
    return Analysis(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(command),
        versions=versions(),
        model=Model(**facts),
        device=device,
        tasks={name: board.tasks[name].as_json() if board else {} for name in tasks},
        offsets=list(OFFSETS),
        statistics=Statistics(resamples=options.resamples, seed=options.seed),
        cases=cases,
        heads=heads_part([case for case, _ in observed], cases),
        correlations=_correlations(options, observed, tasks, board) if board else {},
    )


def _case(case: Case, looks: Looks, tasks: Sequence[str], board: Board | None) -> CasePart:
    row = next((row for row in board.rows if row.label == case.spec.label), None) if board else None
    scores = {name: Score(score=found.score, stderr=found.stderr) for name, found in row.tasks.items()} if row else {}
    return CasePart(
        label=case.spec.label,
        family=case.family,
        chunks=case.chunks,
        settings={name: getattr(case.spec.settings, name) for name in SETTINGS},
        tasks={
            task: _mean([look for (name, _), look in looks.items() if name == task], scores.get(task)) for task in tasks
        },
    )


def _mean(looks: Sequence[Attention], score: Score | None) -> Look:
    """Means over documents, by layer and head and of each whole."""
    roles = list(dict.fromkeys(role for look in looks for role in look.key_norms))
    entropies = np.array([np.mean(look.entropy) for look in looks])
    return Look(
        documents=len(looks),
        mean_chunks=float(np.mean([look.chunks for look in looks])),
        query_tokens=float(np.mean([look.tokens for look in looks])),
        entropy=float(entropies.mean()),
        entropy_stderr=float(entropies.std(ddof=1) / np.sqrt(len(looks))) if len(looks) > 1 else None,
        logit=float(np.mean([look.logit for look in looks])),
        mass=Mass(**{role: float(np.mean([look.mass[role] for look in looks])) for role in ROLES}),
        by_head=ByHead(
            entropy=np.mean([look.entropy for look in looks], axis=0).tolist(),
            logit=np.mean([look.logit for look in looks], axis=0).tolist(),
            mass=MassTables(**{role: np.mean([look.mass[role] for look in looks], axis=0).tolist() for role in ROLES}),
        ),
        key_norms={role: _norms([look.key_norms[role] for look in looks if role in look.key_norms]) for role in roles},
        recomputed=_recomputed(looks),
        score=score,
    )


def _recomputed(looks: Sequence[Attention]) -> Recomputed | None:
    """Means over the documents of which something was recomputed; by chunk, over those that have so many."""
    found = [(look, look.recomputed) for look in looks if look.recomputed]
    if not found:
        return None
    differences = np.array([np.mean(look.entropy) - recomputed.entropy_without for look, recomputed in found])
    by_chunk = list(zip_longest(*(recomputed.by_chunk for _, recomputed in found)))
    return Recomputed(
        by_chunk=[float(np.mean([share for share in shares if share is not None])) for shares in by_chunk],
        by_offset=_norms([[recomputed.by_offset] for _, recomputed in found])[0],
        entropy_without=float(np.mean([recomputed.entropy_without for _, recomputed in found])),
        entropy_difference=float(differences.mean()),
        entropy_difference_stderr=float(differences.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else None,
    )


def _norms(norms: Sequence[Sequence[Sequence[float | None]]]) -> list[list[float | None]]:
    """Mean over the documents that have a value; None if none has."""
    values = np.array(norms, dtype=float)
    counts = np.isfinite(values).sum(0)
    sums = np.nansum(values, axis=0)
    return [
        [float(total / count) if count else None for total, count in zip(*row, strict=True)]
        for row in zip(sums, counts, strict=True)
    ]


def _correlations(
    options: Options, observed: Sequence[tuple[Case, Looks]], tasks: Sequence[str], board: Board
) -> dict[str, Correlations]:
    """Of entropy and score by task, over all cases and over those of each strategy with the sequential model.

    The documents are those whose attention was looked at in every case.
    """
    families = dict.fromkeys(case.family for case, _ in observed)
    groups = {ALL: [True] * len(observed)}
    groups |= {name: [case.family in (name, "sequential") for case, _ in observed] for name in families}
    found: dict[str, Correlations] = {}
    for task in tasks:
        pair = _aligned(task, observed, board)
        if pair is None:
            continue
        entropies, scores = pair
        chance = {"resamples": options.resamples, "seed": options.seed}
        found[task] = Correlations(
            documents=len(entropies),
            groups={
                name: {
                    kind: Correlation(**correlate(kind, entropies[:, own], scores[:, own], **chance)._asdict())
                    for kind in ("pearson", "spearman")
                }
                for name, own in groups.items()
                if name == ALL or sum(own) > 2
            },
        )
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
