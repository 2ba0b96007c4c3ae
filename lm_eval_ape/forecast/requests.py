"""Requests of the harness as parts of a run: prompts read, tokens generated, continuations and whole texts scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from lm_eval_ape.engine.operations import ModelShape, PromptOperations
from lm_eval_ape.forecast.parts import Held, Item, Part, context_tokens, passed_tokens
from lm_eval_ape.forecast.random_model import RandomApeHFLM
from lm_eval_ape.forecast.weightless import WeightlessApeHFLM
from lm_eval_ape.harness.asked import by_context
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.clock import now
from lm_eval_ape.settings.strategy import Settings

# Tokens that are generated to find out what one takes.
TIMED_TOKENS = 9
_NEVER = "\0" * 4
_LENGTHS = ("max_new_tokens", "max_tokens", "max_length")


def request_parts(
    lm: WeightlessApeHFLM, name: str, settings: Settings, requests: Sequence[Instance], times: int = 1
) -> list[Part]:
    """The parts that answer requests under settings.

    Args:
        lm: The model without weights.
        name: Whose requests they are.
        settings: How they are read.
        requests: The requests, of any kinds.
        times: How often they are answered.

    Raises:
        ApeError: A request cannot be cut, or asks for what cannot be done.
    """
    kinds: dict[str, list[Instance]] = {}
    for request in requests:
        kind = "loglikelihood" if request.request_type == "multiple_choice" else str(request.request_type)
        kinds.setdefault(kind, []).append(request)
    makers = {"generate_until": _generated, "loglikelihood": _scored, "loglikelihood_rolling": _whole_texts}
    parts: list[Part] = []
    with lm.under(settings):
        for kind, own in kinds.items():
            parts += makers[kind](lm, name, settings, own)
    return [replace(part, times=times) for part in parts]


def _generated(lm: WeightlessApeHFLM, name: str, settings: Settings, requests: list[Instance]) -> list[Part]:
    prompts = lm.ask("generate_until", requests).prompts
    # As the harness does it: those with the same options together, the longest first.
    groups: dict[str, list[Instance]] = {}
    for request in requests:
        groups.setdefault(repr(request.args[1]), []).append(request)
    items = []
    for group in groups.values():
        ordered = sorted(group, key=lambda request: -len(prompts[request.args[0]].ids))
        new = int(normalize_gen_kwargs(group[0].args[1], lm.max_gen_toks)["max_gen_toks"])
        size = int(lm.batch_size)
        for first in range(0, len(ordered), size):
            batch = ordered[first : first + size]
            own = tuple(prompts[request.args[0]] for request in batch)
            items.append(Item(own, tuple(batch), (new,) * len(batch)))

    def reading(shape: ModelShape, settings: Settings, item: Item) -> float:
        return sum(_prefill(shape, prompt, settings) for prompt in item.prompts)

    def generating(shape: ModelShape, settings: Settings, item: Item) -> float:
        pairs = zip(item.prompts, item.new, strict=True)
        return sum(PromptOperations.of(shape, prompt).generation(new) for prompt, new in pairs)

    def held(item: Item) -> Held:
        rows, passed = len(item.prompts), passed_tokens(item.prompts, settings)
        query = rows * max(len(prompt.query) for prompt in item.prompts)
        return Held(item.tokens + sum(item.new), max(passed, query), rows, 2 * rows)

    shared: dict[str, Any] = {"settings": settings, "items": items, "held": held}
    return [
        Part(f"{name}: prompts read", operations=reading, measure=partial(_seconds, settings, "reading"), **shared),
        Part(
            f"{name}: tokens generated",
            operations=generating,
            measure=partial(_seconds, settings, "generating"),
            new=lambda item: sum(item.new),
            reads=False,
            **shared,
        ),
    ]


def _seconds(settings: Settings, what: str, lm: RandomApeHFLM, item: Item) -> float:
    """Of reading an item's prompts up to the first new token, or of all new tokens after it."""
    new = item.new[0]

    def generate(tokens: int) -> float:
        requests = [_generating(request, tokens) for request in item.requests]
        with lm.reading(settings, requests, item.prompts):
            start = now(lm.engine.device)
            lm.generate_until(requests, disable_tqdm=True)
            return now(lm.engine.device) - start

    if what == "reading":
        return generate(1)
    some = min(new, TIMED_TOKENS)
    if some < 2:
        return 0.0
    return max(0.0, generate(some) - generate(1)) * (new - 1) / (some - 1)


def _generating(request: Instance, tokens: int) -> Instance:
    """The same request for exactly so many tokens."""
    text, options = request.args
    # Looking for stop strings takes time too: as many that never come.
    until = options.get("until") or []
    never = [_NEVER] * (1 if isinstance(until, str) else len(until))
    exact = {name: value for name, value in options.items() if name not in _LENGTHS}
    exact |= {"max_gen_toks": tokens, "min_new_tokens": tokens, "until": never}
    return Instance(
        request.request_type, request.doc, (text, exact), request.idx, metadata=(request.task_name, request.doc_id, 1)
    )


def _scored(lm: WeightlessApeHFLM, name: str, settings: Settings, requests: list[Instance]) -> list[Part]:
    prompts = lm.ask("loglikelihood", requests).prompts
    cut = [prompts[request.args[0]] for request in requests]
    following = {id(request): lm.continuation(request) for request in requests}
    items = []
    for group in by_context(cut, settings):
        # Continuations that differ in their last token alone are one row: its last logits score all of them.
        rows = {(requests[index].args[0], following[id(requests[index])][:-1]): index for index in group}
        chosen = list(rows.values())
        items.append(
            Item(
                tuple(cut[index] for index in chosen),
                tuple(requests[index] for index in chosen),
                tuple(len(following[id(requests[index])]) for index in chosen),
            )
        )

    def operations(shape: ModelShape, settings: Settings, item: Item) -> float:
        counts = [PromptOperations.of(shape, prompt) for prompt in item.prompts]
        parallel = bool(item.prompts[0].chunks)
        rows = sum(
            count.continuation(new, sequential=not parallel) for count, new in zip(counts, item.new, strict=True)
        )
        return rows + (counts[0].prefill(settings) - counts[0].reading if parallel else 0.0)

    def held(item: Item) -> Held:
        size, first = min(len(item.prompts), int(lm.batch_size)), item.prompts[0]
        rows = size * (len(first.query) + max(item.new))
        passed = max(rows, passed_tokens(item.prompts[:1], settings))
        return Held(context_tokens(first) + rows, passed, rows, 2 * rows)

    def seconds(lm: RandomApeHFLM, item: Item) -> float:
        with lm.reading(settings, item.requests, item.prompts):
            start = now(lm.engine.device)
            lm.loglikelihood(list(item.requests), disable_tqdm=True)
            return now(lm.engine.device) - start

    return [Part(f"{name}: answers scored", settings, items, operations, seconds, held, new=lambda item: sum(item.new))]


def _whole_texts(lm: WeightlessApeHFLM, name: str, settings: Settings, requests: list[Instance]) -> list[Part]:
    prompts: Mapping[str, Prompt] = lm.ask("loglikelihood_rolling", requests).prompts
    if not prompts:
        texts = {request.args[0] for request in requests}
        prompts = {text: Prompt((), (), tuple(lm.tok_encode(text))) for text in texts}
    items = [Item((prompts[request.args[0]],), (request,), (0,)) for request in requests]
    window = lm.max_length

    def operations(shape: ModelShape, settings: Settings, item: Item) -> float:
        count = PromptOperations.of(shape, item.prompts[0])
        if not item.prompts[0].chunks:
            return shape.forward(count.tokens, min(count.tokens, window) / 2) + count.tokens * shape.head
        before = count.prefill(settings) - count.reading + (count.prefix + count.context) * shape.head
        return before + count.continuation(1)

    def held(item: Item) -> Held:
        prompt = item.prompts[0]
        passed = passed_tokens([prompt], settings) if prompt.chunks else min(window, len(prompt.ids))
        return Held(len(prompt.ids), passed, passed, 2 * passed)

    def seconds(lm: RandomApeHFLM, item: Item) -> float:
        with lm.reading(settings, item.requests, item.prompts):
            start = now(lm.engine.device)
            lm.loglikelihood_rolling(list(item.requests), disable_tqdm=True)
            return now(lm.engine.device) - start

    return [Part(f"{name}: whole texts scored", settings, items, operations, seconds, held)]


def _prefill(shape: ModelShape, prompt: Prompt, settings: Settings) -> float:
    count = PromptOperations.of(shape, prompt)
    return count.prefill(settings) if prompt.chunks else count.sequential
