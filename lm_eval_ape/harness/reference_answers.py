"""How likely the tasks' reference answers are to a model, each after the very prompt that the task asks with.

A score such as F1 is 0 or 1 for most documents; a log-likelihood moves with every change of the model. What a
document's reference answer is, the task says by `doc_to_target`: a text, texts of which any will do, or the number of
a choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.evaluator_utils import get_sample_size
from tqdm import tqdm

from lm_eval_ape.artefacts.identity import digest
from lm_eval_ape.harness.catalogue import FEWSHOT_SEED
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.harness.model_facts import device_name
from lm_eval_ape.harness.response_cache import identity
from lm_eval_ape.harness.samples import build_requests, prompt_digest
from lm_eval_ape.settings.options import HarnessOptions
from lm_eval_ape.storage.journal import Journal

ANSWER_NATS = "answer_nats"
"""What the log-likelihood of the reference answer is called where a metric of a task is named."""
Pair = tuple[str, str]
"""A prompt, and a reference answer as it follows it."""


class ScoredAnswer(NamedTuple):
    """How likely a document's reference answer is.

    Attributes:
        task: The task's name.
        doc_id: The document's number in its task.
        prompt_sha256: Digest of the text of the document's first prompt.
        answer: The answer as it follows the prompt; of several the one that is likeliest to this model.
        tokens: How many tokens it has.
        nats: Its log-likelihood, the sum over its tokens.
    """

    task: str
    doc_id: int
    prompt_sha256: str
    answer: str
    tokens: int
    nats: float


class ScoredAnswers(NamedTuple):
    """How likely the reference answers of some tasks are.

    Attributes:
        answers: Those of the documents that have one, in the tasks' order.
        without: How many documents of a task have none, where some have one.
        passed_over: Tasks of which no document has one.
    """

    answers: list[ScoredAnswer]
    without: dict[str, int]
    passed_over: list[str]


class _Document(NamedTuple):
    """A document with its reference answers, and how many tokens each has."""

    requests: list[Instance]
    pairs: list[Pair]
    tokens: list[int]


def without_answers(tasks: Mapping[str, Task], limit: float | None) -> list[str]:
    """The tasks of which no document has a reference answer, as far as that can be known without a model.

    Args:
        tasks: Loaded tasks.
        limit: The first so many documents of each task (below 1, that share); None for all.
    """
    return [name for name, task in tasks.items() if not _any_answer(task, limit)]


def score_answers(
    lm: HarnessModel,
    tasks: Mapping[str, Task],
    options: HarnessOptions,
    *,
    cache: Path | None,
    limit: float | None = None,
    picked: Mapping[str, list[int]] | None = None,
) -> ScoredAnswers:
    """Score the reference answers of some tasks with the model's present settings.

    Prompts are those that the harness sends, read as the model's `loglikelihood` reads them; one that is too long for
    the window is cut as it is there. Processes share the work, and each gets the whole result.

    Args:
        lm: The model.
        tasks: Loaded tasks.
        options: Chat template, system instruction, and how many documents are scored at a time.
        cache: Folder that keeps what is scored, so that a killed run goes on; None keeps nothing.
        limit: The first so many documents of each task (below 1, that share); None for all.
        picked: Numbers of the documents to take, ascending, by task; None for all.

    Raises:
        ApeError: A prompt cannot be cut, logits are not finite, or memory does not suffice for a prompt.
    """
    documents: list[_Document] = []
    without: dict[str, int] = {}
    passed_over: list[str] = []
    for name, task in tasks.items():
        whole = [] if task.OUTPUT_TYPE == "loglikelihood_rolling" else _documents(lm, task, options, limit, picked)
        found = [document for document in whole if document.pairs]
        documents += found
        if not found:
            passed_over.append(name)
        elif len(found) < len(whole):
            without[name] = len(whole) - len(found)
    size = options.batch_size
    blocks = [documents[start : start + size] for start in range(0, len(documents), size)]
    answers = [answer for block in _score(lm, blocks, Journal(cache, "answer_nats", lm.rank)) for answer in block]
    return ScoredAnswers(answers, without, passed_over)


def _documents(
    lm: HarnessModel, task: Task, options: HarnessOptions, limit: float | None, picked: Mapping[str, list[int]] | None
) -> list[_Document]:
    # As the harness does before each run, so that the same examples are chosen.
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    by_number: dict[int, list[Instance]] = {}
    numbers = (picked or {}).get(str(task.task_name))
    for request in build_requests(lm, task, options, limit=limit, numbers=numbers):
        by_number.setdefault(int(request.doc_id or 0), []).append(request)
    found = []
    for requests in by_number.values():
        pairs = reference_pairs(task, requests, chat=bool(options.apply_chat_template))
        counted = [(pair, lm.scored_tokens(*pair)) for pair in pairs]
        # An answer that merges into the prompt's last token has none of its own.
        counted = [(pair, tokens) for pair, tokens in counted if tokens]
        found.append(_Document(requests, [pair for pair, _ in counted], [tokens for _, tokens in counted]))
    return found


def _score(lm: HarnessModel, blocks: Sequence[Sequence[_Document]], journal: Journal) -> list[list[ScoredAnswer]]:
    """The documents' answers, block by block: what is read in one batch is the same in every run."""
    model = [identity(lm), device_name(lm)]
    known = {record["key"]: record["nats"] for record in journal.records()}
    rows: list[tuple[int, list[ScoredAnswer]]] = []
    with lm.answering_share() as tallies:
        for number in tqdm(lm.processes.own(len(blocks)), "Scoring reference answers", disable=lm.rank != 0):
            block = blocks[number]
            key = _key(model, block)
            if key not in known:
                known[key] = _nats(lm, block)
                journal.append({"key": key, "nats": known[key]})
            rows.append((number, [_best(*scored) for scored in zip(block, known[key], strict=True)]))
    lm.cutter.report([tally for part in lm.processes.gather(list(tallies)) for tally in part], lm.settings)
    return lm.processes.put_together(rows)


def _key(model: Sequence[Any], block: Sequence[_Document]) -> str:
    """Digest of all that the log-likelihoods of some documents depend on: a prompt is cut by what its document says."""
    asked = [[one.requests[0].task_name, one.requests[0].doc_id, one.requests[0].doc, one.pairs] for one in block]
    return digest(json.dumps([model, asked], sort_keys=True, default=str))


def _nats(lm: HarnessModel, block: Sequence[_Document]) -> list[list[float]]:
    """Log-likelihoods of the documents' answers."""
    found = iter(lm.loglikelihood(_requests(block), disable_tqdm=True))
    return [[float(next(found)[0]) for _ in document.pairs] for document in block]


def _requests(block: Sequence[_Document]) -> list[Instance]:
    """What scores the documents' answers."""
    return [
        Instance("loglikelihood", one.doc, pair, number, metadata=(one.task_name, one.doc_id, 1))
        for document in block
        for one in document.requests[:1]
        for number, pair in enumerate(document.pairs)
    ]


def answer_requests(
    lm: HarnessModel,
    task: Task,
    options: HarnessOptions,
    *,
    limit: float | None,
    picked: Mapping[str, list[int]] | None = None,
) -> list[Instance]:
    """All requests that score a task's reference answers; none of a task that scores whole texts."""
    whole = task.OUTPUT_TYPE == "loglikelihood_rolling"
    return [] if whole else _requests(_documents(lm, task, options, limit, picked))


def _best(document: _Document, nats: Sequence[float]) -> ScoredAnswer:
    """The likeliest answer, as the best one counts for a score; of equal ones the first."""
    first = document.requests[0]
    best = max(range(len(nats)), key=nats.__getitem__)
    return ScoredAnswer(
        str(first.task_name),
        int(first.doc_id or 0),
        prompt_digest(first),
        document.pairs[best][1],
        document.tokens[best],
        nats[best],
    )


def reference_pairs(task: Task, requests: Sequence[Instance], *, chat: bool) -> list[Pair]:
    """A document's prompts and reference answers, joined as the harness joins prompts and choices.

    Args:
        task: The task.
        requests: All requests of one document.
        chat: Whether its prompts went through a chat template.

    Returns:
        None where the document has no reference answer, or an empty one.
    """
    doc, pairs = requests[0].doc, [request.args[:2] for request in requests]
    if task.OUTPUT_TYPE == "generate_until":
        delimiter = _delimiter(task, doc, chat)
        return [(pairs[0][0], f"{delimiter}{text}") for text in _texts(task, doc)]
    if task.OUTPUT_TYPE == "multiple_choice":
        pairs = [pairs[number] for number in _gold(task, doc)]
    elif len(pairs) > 1:
        # A task of older days sends a request for each choice, and its target is the text of the right one.
        texts = _texts(task, doc)
        pairs = [pair for pair in pairs if pair[1] in texts]
    return [pair for pair in pairs if pair[1].strip()]


def _any_answer(task: Task, limit: float | None) -> bool:
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return False
    found = _gold if task.OUTPUT_TYPE == "multiple_choice" else _texts
    documents = task.doc_iterator(rank=0, world_size=1, limit=get_sample_size(task, limit))
    return any(found(task, doc) for _, doc in documents)


def _texts(task: Task, doc: Any) -> list[str]:
    """A document's targets that say something, each once."""
    choices = _choices(task, doc)
    if choices is None and isinstance(task.config.doc_to_target, int):
        # The same number for all documents holds a place that the harness wants filled.
        return []
    found = [_text(target, choices) for target in _listed(task.doc_to_target(doc))]
    return list(dict.fromkeys(text for text in found if text.strip()))


def _text(target: Any, choices: Sequence[Any] | None) -> str:
    """A target's text; empty for what is none."""
    if isinstance(target, str) or not isinstance(target, (int, float)):
        return target if isinstance(target, str) else ""
    if choices is None:
        return str(target)
    return str(choices[target]) if isinstance(target, int) and 0 <= target < len(choices) else ""


def _gold(task: Task, doc: Any) -> list[int]:
    """Numbers of a document's right choices; none for those that it does not have."""
    choices = _choices(task, doc) or []
    # Where the choices stand in the prompts, the task's text is the right one's number.
    gold = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    numbers = [choices.index(one) if isinstance(one, str) and one in choices else one for one in _listed(gold)]
    return list(dict.fromkeys(one for one in numbers if isinstance(one, int) and 0 <= one < len(choices)))


def _choices(task: Task, doc: Any) -> list[Any] | None:
    return None if task.config.doc_to_choice is None else list(task.doc_to_choice(doc))


def _listed(target: Any) -> list[Any]:
    return list(target) if isinstance(target, (list, tuple)) else [target]


def _delimiter(task: Task, doc: Any, chat: bool) -> str:
    """What stands between a prompt and an answer: after a template's header nothing, unless the answer has begun."""
    begun = task.doc_to_prefix(doc)
    return "" if chat and (not begun or begun[-1].isspace()) else str(task.config.target_delimiter)
