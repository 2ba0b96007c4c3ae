"""`ape-hf` with a clock: the lengths of every request and the seconds that it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lm_eval_ape.comparison.memory import PeakMemory
from lm_eval_ape.encoding.kv_store.store import Counts
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.asked import context_key
from lm_eval_ape.prompts.prompt import Prompt, Source
from lm_eval_ape.runtime.clock import now
from lm_eval_ape.settings.strategy import Settings

Answer = TypeVar("Answer")


@dataclass
class Request:
    """One request of the harness as the model read it.

    Attributes:
        task: Name of its task.
        doc_id: Number of its document.
        idx: Its number among the document's requests.
        chunk_tokens: Tokens of each chunk; none where the prompt is one sequence.
        tokens: Tokens of the whole prompt.
        dropped_tokens: How many of them had to be left out.
        recomputed_tokens: How many of the chunks' tokens were recomputed; None where none are.
        prefill_seconds: From its start to the first new token's logits, chunks included; None where nothing is
            generated. A batch's seconds are shared equally by its requests.
        seconds: From start to end. Scored continuations share the time of all of them equally.
        new_tokens: Tokens generated, an end of sequence included; None where nothing is.
    """

    task: str
    doc_id: int
    idx: int
    chunk_tokens: list[int]
    tokens: int
    dropped_tokens: int
    prefill_seconds: float | None = None
    seconds: float | None = None
    new_tokens: int | None = None
    recomputed_tokens: int | None = None


class MeasuredApeHFLM(ApeHFLM):
    """`ape-hf` that measures its requests, and reads them under one strategy after the other."""

    def __init__(self, pretrained: str, **arguments: Any) -> None:
        self.requests: dict[tuple[str, int, int], Request] = {}
        self._by_prompt: dict[Prompt, list[Request]] = {}
        super().__init__(pretrained, **arguments)

    def begin(self, settings: Settings) -> PeakMemory:
        """Read the next requests with these settings, and forget earlier measurements."""
        self.engine = self.engine.under(settings)
        self.engine.used.clear()
        if self.engine.store:
            self.engine.store.counts = Counts()
        self.requests = {}
        return PeakMemory.begin(self.device)

    def note(self, source: Source, request: Instance, prompt: Prompt) -> None:
        """Record how a request was cut, for its measurement to be added."""
        super().note(source, request, prompt)
        # A prompt that is read as one sequence has all its tokens in the query.
        chunks = [len(chunk) for chunk in prompt.chunks]
        tokens = len(prompt.prefix) + sum(chunks) + len(prompt.query) + prompt.dropped
        record = Request(source.task, source.doc_id, request.idx, chunks, tokens, prompt.dropped)
        self.requests[source.task, source.doc_id, request.idx] = record
        self._by_prompt.setdefault(prompt, []).append(record)

    def note_recomputed(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Record how many tokens were recomputed."""
        super().note_recomputed(prompt, tokens)
        for source, number in self._readers[context_key(prompt, self.settings)]:
            self.requests[source.task, source.doc_id, number].recomputed_tokens = sum(tokens)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer the requests, each measured."""
        self._by_prompt = {}
        return super().generate_until(requests, disable_tqdm)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations, measured together."""
        return self._timed(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts, measured together."""
        return self._timed(super().loglikelihood_rolling, requests, disable_tqdm)

    def _timed(
        self, score: Callable[[list[Instance], bool], list[Answer]], requests: list[Instance], disable_tqdm: bool
    ) -> list[Answer]:
        start = self._now()
        answers = score(requests, disable_tqdm)
        seconds = (self._now() - start) / max(1, len(requests))
        for request in requests:
            key = (str(request.task_name), int(request.doc_id or 0), request.idx)
            if key in self.requests:
                self.requests[key].seconds = seconds
        return answers

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        batch = [self._asked.prompts[text] for text in self._asked.batch]
        first = _FirstLogits(self._now)
        start = self._now()
        rows = super()._model_generate(
            context, max_length, stop, **generation_kwargs, logits_processor=LogitsProcessorList([first])
        )
        seconds = self._now() - start
        prefill = (first.time or start) - start
        for prompt, new in zip(batch, rows[:, context.shape[1] :], strict=True):
            for request in self._by_prompt[prompt]:
                request.prefill_seconds = prefill / len(batch)
                request.seconds = seconds / len(batch)
                request.new_tokens = self._generated(new)
        return rows

    def _generated(self, tokens: Tensor) -> int:
        """Tokens up to the end of the sequence; the rest of a row is padding."""
        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, Sequence) else [-1 if ends is None else ends])
        padding = torch.tensor([self.tokenizer.pad_token_id])
        tokens = tokens.cpu()
        over = torch.isin(tokens, torch.cat([ends, padding])).nonzero()
        if not len(over):
            return len(tokens)
        first = int(over[0])
        return first + int(torch.isin(tokens[first], ends))

    def _now(self) -> float:
        return now(self.device)


class _FirstLogits(LogitsProcessor):
    """Records the time of the first new token's logits, and returns them unchanged."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.time: float | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.time is None:
            self.time = self._now()
        return scores
