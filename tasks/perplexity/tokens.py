"""Where a text is cut so that what follows has a given number of tokens, for the tokenizer of the model."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lm_eval_ape.checkpoints.names import located
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.loading import loading_told

# How far a cut may move to find a place at which the text's parts have the text's own tokens.
_REACH = 64


class Cut(NamedTuple):
    """A text in two parts.

    Attributes:
        context: The beginning; it does not end in white space.
        query: What follows.
        tokens: Tokens of the query, as the harness counts them: of both parts together less those of the context.
    """

    context: str
    query: str
    tokens: int


def load_tokenizer(metadata: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the run's model, which the harness names in a task's metadata (as for RULER).

    Args:
        metadata: `tokenizer` or `pretrained`, and `gguf_file`, `revision` and `trust_remote_code` if they are needed.

    Raises:
        ApeError: Neither is there, it cannot be loaded, or cannot tell which characters its tokens cover.
    """
    named = (metadata.get(key) for key in ("tokenizer", "pretrained"))
    name = next((value for value in named if isinstance(value, str) and value), None)
    if name is None:
        raise ApeError(
            "The perplexity tasks count tokens, but no tokenizer is named: give model_args with pretrained=NAME or "
            'tokenizer=NAME, or --metadata \'{"tokenizer": "NAME"}\'; in Python, '
            'TaskManager(metadata={"tokenizer": "NAME"}).'
        )
    gguf_file = None if name == metadata.get("tokenizer") else metadata.get("gguf_file")
    options = {key: metadata[key] for key in ("revision", "trust_remote_code") if metadata.get(key) is not None}
    tokenizer = _load(**located(name, gguf_file), **options)
    if not tokenizer.is_fast:
        raise ApeError(
            f"{type(tokenizer).__name__} of {name} cannot tell which characters its tokens cover; name a fast one."
        )
    return tokenizer


@cache
def _load(pretrained: str, **options: Any) -> PreTrainedTokenizerBase:
    with loading_told(pretrained, "tokenizer of"):
        return AutoTokenizer.from_pretrained(pretrained, **{"trust_remote_code": False, **options})


def cut_end(text: str, tokenizer: PreTrainedTokenizerBase, tokens: int, query_tokens: int) -> Cut | None:
    """Take a text's beginning and cut off its last tokens.

    The cut and the end are put where the parts have the very tokens of the text, up to 64 tokens later than asked for,
    so that the query has exactly `query_tokens` tokens; where there is no such place (the tokenizer joins everything),
    the query has about as many.

    Args:
        text: The text.
        tokenizer: A fast one.
        tokens: Tokens to take in all.
        query_tokens: How many of them, at the end, are the query; fewer than `tokens`.

    Returns:
        The parts; None if the text is too short.
    """
    # Far more characters than tokens need: a book need not be tokenised whole.
    text = text.strip()[: 24 * (tokens + _REACH)]
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, starts = encoding["input_ids"], [start for start, _ in encoding["offset_mapping"]]
    starts.append(len(text))
    if len(ids) < tokens:
        return None

    def whole(end: int) -> bool:
        """Whether the text up to a token has the tokens up to it, and does not end in white space."""
        part = text[: starts[end]]
        return part == part.rstrip() and tokenizer(part, add_special_tokens=False)["input_ids"] == ids[:end]

    first = tokens - query_tokens
    for shift in range(min(_REACH, len(ids) - tokens + 1)):
        if whole(first + shift) and whole(tokens + shift):
            return Cut(
                text[: starts[first + shift]], text[starts[first + shift] : starts[tokens + shift]], query_tokens
            )
    start, end = max(1, len(text[: starts[first]].rstrip())), starts[tokens]
    counted = [len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (text[:end], text[:start])]
    return Cut(text[:start], text[start:end], counted[0] - counted[1])
