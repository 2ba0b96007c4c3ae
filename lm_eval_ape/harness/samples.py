"""Unlabelled samples from the harness's own tasks: the prompts that a task would send to the model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.evaluator_utils import get_sample_size

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.options import HarnessOptions

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One prompt of one document.

    Attributes:
        task: The task's name.
        doc_id: The document's number in its task.
        number: The prompt's number in its document; above 0 only where a document has several prompts.
        prompt: Its token ids, cut.
        digest: Digest of its text.
    """

    task: str
    doc_id: int
    number: int
    prompt: Prompt
    digest: str

    def __str__(self) -> str:
        return f"document {self.doc_id} of task {self.task}"


class Gathered(NamedTuple):
    """The samples of some tasks.

    Attributes:
        samples: Those to calibrate on, in the tasks' order.
        too_long: How many were left out because the model's window cannot hold them in one sequence.
        no_context: How many were left out because they have no context, so that T and S change nothing.
    """

    samples: list[Sample]
    too_long: int
    no_context: int


def gather(
    lm: HarnessModel,
    tasks: Mapping[str, Task],
    options: HarnessOptions,
    *,
    num_tokens: int,
    on_too_long: str = "skip",
    limit: float | None = None,
    picked: Mapping[str, list[int]] | None = None,
) -> Gathered:
    """Build the tasks' requests and cut each different prompt once. No label and no metric is read.

    Args:
        lm: The model, for its chat template, tokenizer, window and settings.
        tasks: Loaded tasks.
        options: Chat template and system instruction.
        num_tokens: K, the new tokens that must fit into the window too.
        on_too_long: What to do with samples that are too long: `skip` or `error`.
        limit: The first so many documents of each task (below 1, that share); None for all.
        picked: Numbers of the documents to take, by task; None for all.

    Raises:
        ApeError: A task scores whole texts, has no context, or nothing is left; or a sample is too long and that is
            to be an error.
    """
    gathered = collect(lm, tasks, options, num_tokens=num_tokens, on_too_long=on_too_long, limit=limit, picked=picked)
    if not gathered.samples:
        raise ApeError(
            f"No sample is left of {', '.join(tasks)}: {gathered.too_long} are longer than the model's window of "
            f"{lm.max_length} tokens and {gathered.no_context} have no context."
        )
    return gathered


def collect(
    lm: HarnessModel,
    tasks: Mapping[str, Task],
    options: HarnessOptions,
    *,
    num_tokens: int,
    on_too_long: str = "skip",
    limit: float | None = None,
    picked: Mapping[str, list[int]] | None = None,
) -> Gathered:
    """As `gather`, but nothing may be left."""
    picked = picked or {}
    if unknown := sorted(set(picked) - set(tasks)):
        raise ApeError(
            f"samples names the task {unknown[0]!r}, which is not calibrated on.{nearest(unknown[0], tasks)}"
        )
    candidates: list[Instance] = []
    for name, task in tasks.items():
        requests = build_requests(lm, task, options, limit=limit, numbers=picked.get(name))
        candidates += _unique(requests)
    prompts: dict[str, Prompt] = {}
    if lm.settings.retrieves:
        # The teacher reads what the retriever keeps, however long the document is.
        prompts = lm.split_requests(candidates, [num_tokens] * len(candidates), quiet=True)
    fitting: list[Instance] = []
    too_long = 0
    for request in candidates:
        text = request.args[0]
        tokens = len(prompts[text].ids) if text in prompts else len(lm.cutter.ids.of(request)(text)[0])
        if tokens + num_tokens <= lm.max_length:
            fitting.append(request)
        elif on_too_long == "error":
            raise ApeError(
                f"document {request.doc_id} of task {request.task_name} has {tokens} tokens, which with "
                f"{num_tokens} new ones do not fit into the model's window of {lm.max_length}, so the "
                "sequential teacher cannot read it; raise max_length, choose shorter documents, or leave it out with "
                "--on_too_long skip."
            )
        else:
            too_long += 1
    prompts = prompts or lm.split_requests(fitting, [num_tokens] * len(fitting), quiet=True)
    whole = [_sample(request, prompts[request.args[0]]) for request in fitting]
    samples = [sample for sample in whole if sample.prompt.chunks]
    gathered = Gathered(samples, too_long, len(whole) - len(samples))
    if too_long:
        logger.warning(
            "%d samples do not fit into the model's window of %d tokens and are left out.", too_long, lm.max_length
        )
    if gathered.no_context:
        logger.warning(
            "%d samples have no context and are left out: T and S change nothing there.", gathered.no_context
        )
    return gathered


def build_requests(
    lm: HarnessModel, task: Task, options: HarnessOptions, *, limit: float | None, numbers: list[int] | None
) -> list[Instance]:
    """A task's requests, as the harness sends them; documents that were picked keep their numbers.

    Raises:
        ApeError: The task scores whole texts.
    """
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise ApeError(
            f"Task {task.task_name} scores whole texts (loglikelihood_rolling): there is no next token to compare."
        )
    return all_requests(lm, task, options, limit=limit, numbers=numbers)


def all_requests(
    lm: HarnessModel, task: Task, options: HarnessOptions, *, limit: float | None, numbers: list[int] | None = None
) -> list[Instance]:
    """The same of any task, those that score whole texts among them."""
    task.build_all_requests(
        limit=get_sample_size(task, limit),
        samples=numbers,
        rank=0,
        world_size=1,
        **{**options.prompting, "apply_chat_template": bool(options.apply_chat_template)},
        chat_template=lm.apply_chat_template if options.apply_chat_template else None,
        tokenizer_name=lm.tokenizer_name if options.apply_chat_template else "",
    )
    if numbers:
        # The harness counts picked documents from 0.
        for request in task.instances:
            request.doc_id = numbers[request.doc_id]
    return list(task.instances)


def _unique(requests: Iterable[Instance]) -> list[Instance]:
    """The requests with different prompts: a multiple-choice document sends the same one with every answer."""
    seen: dict[tuple[int | None, str], Instance] = {}
    for request in requests:
        seen.setdefault((request.doc_id, request.args[0]), request)
    counts: dict[int | None, int] = {}
    for (doc_id, _), request in seen.items():
        request.idx = counts.get(doc_id, 0)
        counts[doc_id] = request.idx + 1
    return list(seen.values())


def _sample(request: Instance, prompt: Prompt) -> Sample:
    digest = prompt_digest(request)
    return Sample(str(request.task_name), int(request.doc_id or 0), request.idx, prompt, digest)


def prompt_digest(request: Instance) -> str:
    """Digest of a request's prompt, the one that the harness writes beside a document's score."""
    return hashlib.sha256(request.args[0].encode()).hexdigest()


def task_digest(task: Task, samples: Sequence[Sample]) -> dict[str, Any]:
    """What identifies a task's part in a calibration: its version and digests of its documents and prompts."""
    own = [sample for sample in samples if sample.task == task.task_name]
    documents = "".join(json.dumps(doc, sort_keys=True, default=str) for doc in task.eval_docs)
    return {
        "task": task.task_name,
        "version": str((task.config.metadata or {}).get("version", task.VERSION)),
        "samples": len(own),
        "documents_sha256": hashlib.sha256(documents.encode()).hexdigest(),
        "prompts_sha256": hashlib.sha256("".join(sample.digest for sample in own).encode()).hexdigest(),
    }
