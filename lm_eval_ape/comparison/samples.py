"""One task's `samples_*.jsonl` of the harness: scores, predictions and hashes, checked to be whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.utils import hash_string

from lm_eval_ape.artefacts.document import checking
from lm_eval_ape.artefacts.harness_files import Results, SampleLine
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import from_json, text_of

# Characters kept of a prompt's end, where the question stands.
TAIL = 600


class Key(NamedTuple):
    """A document of a task, found again in other runs.

    Attributes:
        doc_hash: The harness's digest of the document.
        occurrence: 0, or above it for further rows of a task whose documents are the same to the letter.
    """

    doc_hash: str
    occurrence: int


class Row(NamedTuple):
    """One document's outcome.

    Attributes:
        doc_id: Its number in the task.
        prompt_hash: The harness's digest of its first prompt.
        metrics: Each metric's value.
        prediction: The answer that was scored; of several options the likeliest.
        target: The right answer.
        prompt_characters: Length of the first prompt.
        prompt_end: Its last characters.
    """

    doc_id: int
    prompt_hash: str
    metrics: dict[str, Any]
    prediction: str
    target: str
    prompt_characters: int
    prompt_end: str


class Samples(NamedTuple):
    """A task's rows.

    Attributes:
        rows: By document, in the file's order; of several filters, the first one's.
        filter: That filter's name.
        repeated: How many rows have a document that an earlier one has too.
    """

    rows: dict[Key, Row]
    filter: str
    repeated: int


def read_samples(path: Path, task: str, results: Results) -> Samples:
    """Read a task's samples file.

    Args:
        path: The file.
        task: The task's name.
        results: The results file that belongs to it, which says how many rows there are, and their digest.

    Raises:
        ApeError: The file is missing, broken off, changed, or of another run.
    """
    lines = _lines(path, task)
    filters = list(dict.fromkeys(line.filter for line in lines))
    expected = counted.effective if (counted := results.sample_counts.get(task)) else None
    for name in filters:
        own = [line for line in lines if line.filter == name]
        count = len(own)
        if expected is not None and expected not in (count, _evaluated(own)):
            raise ApeError(
                f"{path} holds {count} rows, but the run evaluated {expected} documents of {task}: the file is "
                f"{'broken off' if count < expected else 'not of this run alone, or holds rows twice'}. Run it again."
            )
    digest = results.task_hashes.get(task)
    if digest and digest != hash_string("".join(x.doc_hash + x.prompt_hash + x.target_hash for x in lines)):
        raise ApeError(
            f"{path} does not hold the rows that {task} was run on (their digest is not the one in the results file): "
            "rows were changed, or are of another run or task. Run it again."
        )
    counts = Counter((line.filter, line.doc_id) for line in lines)
    if (twice := next((doc_id for (_, doc_id), count in counts.items() if count > 1), None)) is not None:
        raise ApeError(f"{path} holds document {twice} twice, which would count twice: rows were added. Run it again.")
    seen: Counter[str] = Counter()
    rows: dict[Key, Row] = {}
    for line in lines:
        if line.filter == filters[0]:
            rows[Key(line.doc_hash, seen[line.doc_hash])] = _row(line)
            seen[line.doc_hash] += 1
    return Samples(rows, filters[0], sum(seen.values()) - len(seen))


def _evaluated(lines: Sequence[SampleLine]) -> int:
    """How many documents the harness says that it evaluated: those of the metric that the most rows have."""
    return max(Counter(metric for line in lines for metric in line.metrics).values(), default=len(lines))


def _lines(path: Path, task: str) -> list[SampleLine]:
    try:
        # Not `splitlines`, which would also part a line at separators that stand in an answer.
        text = text_of(path.read_bytes()).split("\n")
    except FileNotFoundError as error:
        raise ApeError(
            f"There is no {path.name} in {path.parent}, which holds the scores of each document of {task}; run it "
            "again with --log_samples."
        ) from error
    except (OSError, ValueError) as error:
        raise ApeError(f"The samples {path} cannot be read: {reason(error)}. Run {task} again.") from error
    while text and not text[-1].strip():
        del text[-1]
    lines: list[SampleLine] = []
    for number, line in enumerate(text, start=1):
        try:
            # The harness writes NaN and infinities, also of metrics that nobody asks for.
            content = from_json(line, finite=False)
        except ValueError as error:
            where = "the file is broken off" if number == len(text) else "the file is damaged"
            raise ApeError(
                f"Line {number} of {path} is no whole sample ({reason(error)}); {where}. Run {task} again."
            ) from error
        with checking(f"Line {number} of {path} is no sample as the harness writes it", f"Run {task} again.", "it"):
            lines.append(SampleLine.model_validate(content))
    if not lines:
        raise ApeError(f"{path} holds no sample; run {task} again.")
    return lines


def _row(line: SampleLine) -> Row:
    arguments = list(line.arguments.values())
    prompt = str(arguments[0]["arg_0"])
    return Row(
        line.doc_id,
        line.prompt_hash,
        line.values,
        _prediction(line.filtered_resps, arguments),
        str(line.target),
        len(prompt),
        prompt[-TAIL:],
    )


def _prediction(responses: Sequence[Any], arguments: Sequence[Mapping[str, Any]]) -> str:
    """The generated text, or the likeliest of the scored continuations."""
    if len(responses) < 2 or not all(isinstance(response, list) for response in responses):
        return str(responses[0]) if responses else ""
    try:
        likelihoods = [float(response[0]) for response in responses]
        best = max(range(len(responses)), key=likelihoods.__getitem__)
        continuation = arguments[best]["arg_1"]
    except (IndexError, KeyError, TypeError, ValueError):
        return str(responses)
    return str(responses) if any(map(math.isnan, likelihoods)) else str(continuation).strip()
