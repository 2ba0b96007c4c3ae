"""Which options of `generate` a request may have: those that mean the same for a prompt read in pieces."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from transformers import GenerationConfig, GenerationMixin

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.prompts.prompt import Prompt

# What the harness itself makes of a request's options.
_HARNESS = frozenset({"until", "max_gen_toks", "max_tokens", "max_completion_tokens", "max_new_tokens"})

_SET = "the harness sets it itself"
_ONE_TEXT = "the harness takes one text a request"
# Under any strategy, also with the harness's own `hf`, where they end in a traceback.
_NEVER = {
    "use_cache": _SET,
    "pad_token_id": _SET,
    "return_dict_in_generate": _ONE_TEXT,
    "num_return_sequences": _ONE_TEXT,
}

_CACHE = "the encoded chunks are the cache"
_REREADS = "it reads the prompt a second time, as one sequence"
_GUESSES = "it takes tokens back, which a cache of encoded chunks cannot"
_CODE = "it runs code that transformers loads from a hub"
_TOKENIZER = "it needs a tokenizer, which the harness does not give to generate; use until=... in its place"
# Under parallel strategies.
_WHOLE = {
    "cache_implementation": _CACHE,
    "cache_config": _CACHE,
    "max_cache_len": _CACHE,
    "continuous_batching_config": _CACHE,
    "prefill_chunk_size": "the prompt is read in pieces as it is",
    "guidance_scale": _REREADS,
    "prompt_lookup_num_tokens": _GUESSES,
    "assistant_early_exit": _GUESSES,
    "speculation_type": _GUESSES,
    "use_mtp": _GUESSES,
    "penalty_alpha": _CODE,
    "dola_layers": _CODE,
    "constraints": _CODE,
    "force_words_ids": _CODE,
    "num_beam_groups": _CODE,
    "diversity_penalty": _CODE,
    "low_memory": _CODE,
    "custom_generate": _CODE,
    "stop_strings": _TOKENIZER,
    "token_healing": _TOKENIZER,
}


def check_generation(requests: Sequence[Instance], own: GenerationConfig, *, parallel: bool) -> None:
    """Refuse options of `generate` that do not exist, or that do not go with the strategy.

    Args:
        requests: Requests of `generate_until`.
        own: The model's own options, which hold where a request says nothing.
        parallel: Whether prompts are read in pieces.

    Raises:
        ApeError: With the option's name and the reason.
    """
    check_own(own, parallel=parallel)
    checked: list[Mapping[str, Any]] = []
    for request in requests:
        options = request.args[1]
        if options in checked:
            continue
        checked.append(options)
        mend = "drop it from --gen_kwargs or the task's generation_kwargs"
        check_options(f"Task {request.task_name} generates with", options, parallel=parallel, mend=mend)


def check_own(own: GenerationConfig, *, parallel: bool) -> None:
    """Refuse a model's own options that do not go with the strategy.

    Raises:
        ApeError: With the option's name and the reason.
    """
    if parallel and (wrong := next(_unfit(vars(own), parallel, of_model=True), None)):
        raise ApeError(
            f"The model's generation_config.json has {wrong}, so only strategy=sequential can generate with it; take "
            "it out of that file."
        )


def check_options(what: str, options: Mapping[str, Any], *, parallel: bool, mend: str) -> None:
    """Refuse options that do not exist, or that do not go with the strategy.

    Args:
        what: Whose they are: the beginning of a sentence.
        options: The options.
        parallel: Whether prompts are read in pieces.
        mend: What to do about one that does not go.

    Raises:
        ApeError: With the option's name and the reason.
    """
    known = {*_HARNESS, *vars(GenerationConfig()), *inspect.signature(GenerationMixin.generate).parameters}
    if unknown := next((name for name in options if name not in known), None):
        raise ApeError(f"{what} {unknown!r}, which is no option of generate.{nearest(unknown, known)}")
    if wrong := next(_unfit(options, parallel), None):
        raise ApeError(f"{what} {wrong}; {mend}.")


def check_lengths(requests: Sequence[Instance], prompts: Mapping[str, Prompt]) -> None:
    """Refuse a `max_length`, which counts the prompt, that a prompt has used up.

    Args:
        requests: Requests of `generate_until`.
        prompts: By a request's text, how it was cut.

    Raises:
        ApeError: With the document.
    """
    for request in requests:
        length, tokens = request.args[1].get("max_length"), len(prompts[request.args[0]].ids)
        if isinstance(length, int) and length <= tokens:
            raise ApeError(
                f"document {request.doc_id} of task {request.task_name}: max_length={length} leaves nothing to "
                f"generate after the prompt's {tokens} tokens; use max_gen_toks, which counts new tokens alone."
            )


def _unfit(options: Mapping[str, Any], parallel: bool, *, of_model: bool = False) -> Iterator[str]:
    """Options that are set and cannot be kept, each with its value and the reason."""
    usual = vars(GenerationConfig())
    for name, reason in {**({} if of_model else _NEVER), **(_WHOLE if parallel else {})}.items():
        value = options.get(name)
        if value is None or value == usual.get(name) or (name, value) == ("num_return_sequences", 1):
            continue
        if of_model and name == "cache_implementation":
            # What a checkpoint would like is no wish of the user's; the chunks' cache stands in its place.
            continue
        yield f"{name}={value!r:.60}, but {reason}"
