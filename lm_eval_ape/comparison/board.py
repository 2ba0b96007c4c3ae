"""The board: everything known about the compared runs. Tables and reports are made from it alone."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from lm_eval_ape.artefacts.board import (
    SCHEMA_VERSION,
    Answer,
    Average,
    Board,
    Row,
    Sample,
    Statistics,
    Task,
    TaskScore,
)
from lm_eval_ape.artefacts.identity import versions
from lm_eval_ape.artefacts.run_record import Measured
from lm_eval_ape.comparison.answer_board import Answers
from lm_eval_ape.comparison.costs import costs
from lm_eval_ape.comparison.kl_board import Divergences
from lm_eval_ape.comparison.kl_board import notes as kl_notes
from lm_eval_ape.comparison.lengths import Lengths, by_length, measure
from lm_eval_ape.comparison.matching import Matched, averaged, find_baseline, match
from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.statistics import estimate, paired

# Parts of the harness's results that say what made them, beside `config`.
_PROVENANCE = (
    "git_hash date transformers_version lm_eval_version upper_git_hash pretty_env_info chat_template_sha "
    "chat_template system_instruction fewshot_as_multiturn max_length total_evaluation_time_seconds"
).split()


def make_board(
    runs: Sequence[Run],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    no_means: Mapping[str, Collection[str]] | None = None,
    resamples: int = 9999,
    seed: int = 1234,
    command: Sequence[str] = (),
) -> Board:
    """Compare runs on the documents that they share.

    Args:
        runs: The runs, in the board's order.
        baseline: Label of the row that others are compared with; by default the only sequential one.
        metric: What is scored; by default each task's first metric that is a mean over documents.
        no_means: Each task's metrics that are known to be no means.
        resamples: Bootstrap resamples, and sign flips of the test.
        seed: Of both.
        command: What made the board.

    Returns:
        The board. Scores and differences are in the metric's own unit, lengths in tokens or characters, times in
        seconds, memory in bytes, divergences and log-likelihoods in nats.

    Raises:
        ApeError: The baseline or the metric does not exist, or the runs have nothing in common.
    """
    base = find_baseline(runs, baseline)
    matched, notes = match(runs, base, metric, no_means)
    if base is None:
        notes.insert(
            0,
            "No differences: they need a baseline. Put sequential among the strategies, or name a row with --baseline "
            f"({', '.join(repr(run.label) for run in runs)}).",
        )
    labels = [run.label for run in runs]
    lengths = measure(matched, runs)
    divergences = {run.label: Divergences(run) for run in runs}
    chance = {"resamples": resamples, "seed": seed}
    answers = Answers(runs, matched, base, chance)
    notes += [*kl_notes(list(divergences.values()), matched), *answers.notes()]
    return Board(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(command),
        versions=versions(),
        baseline=base,
        statistics=Statistics(
            **chance,
            confidence=0.95,
            interval="percentile bootstrap over documents, paired (scipy.stats.bootstrap)",
            p_value="two-sided test of random signs of the paired differences (scipy.stats.permutation_test)",
            within_noise="p >= 0.05, or the interval holds 0",
        ),
        notes=notes,
        tasks={task.task: _task_part(task, runs) for task in matched},
        rows=[_row_part(divergences[run.label], answers, matched, labels, base=base, chance=chance) for run in runs],
        lengths=by_length(matched, lengths, labels, base, **chance),
        samples={task.task: _samples_part(task, runs, lengths, divergences, answers) for task in matched},
    )


def _task_part(task: Matched, runs: Sequence[Run]) -> Task:
    run = next(run for run in runs if run.label in task.scores)
    return Task(
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        filter=run.tasks[task.task].filter,
        documents=len(task.keys),
        version=run.results.versions.get(task.task),
        num_fewshot=run.results.shots.get(task.task),
        config=run.results.configs.get(task.task),
    )


def _row_part(
    divergences: Divergences,
    answers: Answers,
    matched: Sequence[Matched],
    labels: Sequence[str],
    *,
    base: str | None,
    chance: Mapping[str, int],
) -> Row:
    run = divergences.run
    own = [task for task in matched if run.label in task.scores]
    shared = averaged(matched, labels)
    record, results = run.record, run.results.as_json()
    identity = record.identity if record else None
    return Row(
        label=run.label,
        model=run.model,
        settings=run.settings,
        config=run.results.config,
        provenance={name: results[name] for name in _PROVENANCE if name in results},
        command=record.command if record else None,
        versions=(identity or {}).get("versions"),
        device=(identity or {}).get("device"),
        identity=identity,
        created=(record.created or None) if record else None,
        results_file=str(run.results_file),
        kl=divergences.objective,
        tasks={
            task.task: TaskScore(
                **_scores_part(run.label, [task], base, chance),
                kl=divergences.mean(task),
                answer_nats=answers.mean(run.label, task),
                left_out=task.left_out.get(run.label, 0),
                reported=run.results.results.get(task.task),
            )
            for task in own
        },
        average=Average(
            **_scores_part(run.label, shared, base, chance),
            kl=divergences.mean(*shared),
            answer_nats=answers.mean(run.label, *shared),
            tasks=[task.task for task in shared],
        )
        if shared
        else None,
        costs=costs(run.record),
    )


def _scores_part(label: str, tasks: Sequence[Matched], base: str | None, chance: Mapping[str, int]) -> dict[str, Any]:
    """Mean over tasks of the mean scores, and how it compares with the baseline's."""
    found = estimate(*(task.scores[label] for task in tasks))
    part: dict[str, Any] = {"score": found.mean, "stderr": found.stderr, "difference": None, "kept": None}
    if base is None or not all(base in task.scores for task in tasks):
        return part
    reference = estimate(*(task.scores[base] for task in tasks)).mean
    if all(task.higher_is_better for task in tasks) and reference > 0:
        part["kept"] = found.mean / reference
    if label != base:
        part["difference"] = paired(*(task.scores[label] - task.scores[base] for task in tasks), **chance)
    return part


def _samples_part(
    task: Matched,
    runs: Sequence[Run],
    lengths: Lengths,
    divergences: Mapping[str, Divergences],
    answers: Answers,
) -> list[Sample]:
    having = [run for run in runs if run.label in task.scores]
    requests = {run.label: _requests(run, task.task) for run in having}
    samples = []
    for index, key in enumerate(task.keys):
        rows = {run.label: run.tasks[task.task].rows[key] for run in having}
        first = next(iter(rows.values()))
        samples.append(
            Sample(
                doc_id=first.doc_id,
                **key._asdict(),
                length=int(lengths.values[task.task][index]),
                prompt_end=first.prompt_end,
                target=first.target,
                runs={
                    label: Answer(
                        score=float(task.scores[label][index]),
                        metrics=row.metrics,
                        prediction=row.prediction,
                        requests=requests[label].get(row.doc_id),
                        kl=divergences[label].prompts(task.task, row),
                        answer_nats=answers.of(label, task.task, key),
                    )
                    for label, row in rows.items()
                },
            )
        )
    return samples


def _requests(run: Run, task: str) -> dict[int, list[Measured]]:
    """Each document's measurements, without the fields that its sample already has."""
    found: dict[int, list[Measured]] = {}
    for request in run.record.requests if run.record else ():
        if request.task == task:
            rest = {name: value for name, value in request.as_json().items() if name not in ("task", "doc_id")}
            found.setdefault(request.doc_id, []).append(Measured(**rest))
    return found
