"""The harness's evaluation by several processes: each answers its share of the requests and knows all answers.

The harness would give each process some documents and put their scores together. A process without a document then ends
the run, few-shot examples are other ones than a single process draws, and shares are filled up with repeated requests.
Here every process builds all requests and scores all answers, as under tensor parallelism, and only what costs is
divided: answering.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import xxhash
from lm_eval import evaluator
from lm_eval.api.instance import Instance

from lm_eval_ape.errors import ApeError

REQUESTS = ("generate_until", "loglikelihood", "loglikelihood_rolling")


def share_evaluation() -> None:
    """Let `lm_eval.evaluator.evaluate` share the requests of an `ape-hf` model; others are evaluated as usual."""
    whole = evaluator.evaluate
    if getattr(whole, "shared_by_lm_eval_ape", False):
        return

    @functools.wraps(whole)
    def evaluate(lm: Any, task_dict: Any, *args: Any, **options: Any) -> Any:
        processes = getattr(lm, "processes", None)
        if processes is None or processes.count == 1:
            return whole(lm, task_dict, *args, **options)
        if processes.rank != 0:
            # Nobody looks at what the others would resample and print.
            options |= {"bootstrap_iters": 0, "write_out": False}
        results = whole(SharedLM(lm), task_dict, *args, **options)
        return results if processes.rank == 0 else None

    evaluate.shared_by_lm_eval_ape = True  # type: ignore[attr-defined]
    evaluator.evaluate = evaluate


class SharedLM:
    """The model as the evaluation sees it: a single process that answers all requests.

    Args:
        lm: An `ApeHFLM`, maybe behind the harness's response cache.
    """

    rank = 0
    world_size = 1

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.lm, name)
        return functools.partial(self._answer, found) if name in REQUESTS else found

    def _answer(self, answer: Callable[[list[Instance]], list[Any]], requests: list[Instance]) -> list[Any]:
        """Answer this process's requests, those of every n-th document of n processes, and take the others' answers.

        Raises:
            ApeError: The processes were given different requests, or one of them has ended.
        """
        processes = self.lm.processes
        documents: dict[tuple[str | None, int | None], int] = {}
        for request in requests:
            documents.setdefault((request.task_name, request.doc_id), len(documents))
        mine = set(processes.own(len(documents)))
        own = [
            number for number, request in enumerate(requests) if documents[request.task_name, request.doc_id] in mine
        ]
        with self.lm.answering_share() as tallies:
            answers = answer([requests[number] for number in own]) if own else []
        gathered = processes.gather((_digest(requests), list(zip(own, answers, strict=True)), tallies))
        if len({digest for digest, _, _ in gathered}) > 1:
            names = ", ".join(sorted({str(request.task_name) for request in requests}))
            raise ApeError(
                f"The processes built different requests for {names}: the task draws or orders its documents otherwise "
                "in each process (sets of strings do, where PYTHONHASHSEED is not fixed); give it a seed, or run it "
                "in one process."
            )
        self.lm.cutter.report([tally for _, _, part in gathered for tally in part], self.lm.settings)
        pairs = sorted((pair for _, part, _ in gathered for pair in part), key=lambda pair: pair[0])
        return [given for _, given in pairs]


def _digest(requests: Sequence[Instance]) -> str:
    digest = xxhash.xxh3_128()
    for request in requests:
        digest.update(f"{request.task_name} {request.doc_id} {request.idx} {request.args}".encode(errors="replace"))
    return str(digest.hexdigest())
