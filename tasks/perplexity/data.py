"""The rows of language modelling: the beginning of a long text as the context, its next tokens as the query.

Zhang et al. (2024) measure perplexity so: the last 1,000 tokens of a text of 8,000, given the others in chunks.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.options import path_text, refuse_unknown, whole_number
from lm_eval_ape.tasks.perplexity.texts import Text, hub_texts, local_texts, python_texts
from lm_eval_ape.tasks.perplexity.tokens import cut_end, load_tokenizer
from lm_eval_ape.tasks.splits import Part, part_rows

logger = logging.getLogger(__name__)

PYTHON = "python"
"""The path that stands for Python's own manual."""
# More characters than a token has on average, so that few pieces of a long text are too short.
_CHARACTERS = 6
OPTIONS = ("perplexity_tokens", "perplexity_query_tokens", "perplexity_path")


def load_perplexity(
    *,
    perplexity_part: Part = "all",
    perplexity_tokens: int = 8000,
    perplexity_query_tokens: int = 1000,
    perplexity_path: str | None = None,
    **metadata: object,
) -> dict[str, Dataset]:
    """Cut one row from the beginning of each text, or of the texts of a part, as the split `test`.

    Args:
        perplexity_part: `calibration` (32 rows), `test` (the others) or `all`; see `lm_eval_ape.tasks.splits`.
        perplexity_tokens: Tokens of a row, context and query. Shorter texts are left out, with a warning.
        perplexity_query_tokens: How many of them, the last ones, are scored.
        perplexity_path: A `.txt` file (one text), a `.jsonl` file (the field `text` of each line), or a folder of such
            files; `python` for the reference manual that ships with Python; None for the test books of PG-19 on the
            hub.
        **metadata: What else the harness knows: the model's arguments name the tokenizer.

    Raises:
        ApeError: An option is unknown or impossible, no tokenizer is named, or the texts cannot be read or are too
            short.
    """
    refuse_unknown(metadata, "perplexity_", OPTIONS)
    tokens = whole_number("perplexity_tokens", perplexity_tokens, 3)
    query_tokens = whole_number("perplexity_query_tokens", perplexity_query_tokens, 1, tokens - 2)
    path = None if perplexity_path is None else path_text("perplexity_path", perplexity_path)
    docs, left_out = _rows(path, metadata, tokens, query_tokens)
    source = f"perplexity_path={path}" if path else "PG-19"
    if not docs:
        raise ApeError(
            f"{source} has no text of perplexity_tokens={tokens} tokens: give longer texts or a smaller number."
        )
    if left_out:
        logger.warning(
            "%d of %d texts of %s have fewer than %d tokens and are left out.",
            left_out,
            left_out + len(docs),
            source,
            tokens,
        )
    chosen = part_rows(len(docs), perplexity_part, source=f"{source} (texts of {tokens} tokens)")
    return {"test": Dataset.from_list([docs[number] for number in chosen])}


def process_results(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
    """Score one row.

    Args:
        doc: A row, as `load_perplexity` gives it.
        results: Log-likelihood of the query in nats, and whether it is the greedy continuation, alone in its list.

    Returns:
        `nats_per_token`, the mean loss of the row's query tokens; `token_perplexity`, the log-likelihood with the
        number of tokens, for the harness's `weighted_perplexity`: exp of the mean loss of all rows' query tokens.
    """
    log_likelihood = float(results[0][0])
    return {
        "nats_per_token": -log_likelihood / doc["query_tokens"],
        "token_perplexity": (log_likelihood, doc["query_tokens"]),
    }


def _texts(path: str | None, tokens: int) -> Iterator[Text]:
    if path is None:
        return hub_texts()
    return python_texts(_CHARACTERS * tokens) if path == PYTHON else local_texts(path)


def _rows(
    path: str | None, metadata: Mapping[str, Any], tokens: int, query_tokens: int
) -> tuple[list[dict[str, Any]], int]:
    """The rows of all texts that are long enough, and how many are not."""
    tokenizer = load_tokenizer(metadata)
    docs: list[dict[str, Any]] = []
    left_out = 0
    for source in _texts(path, tokens):
        cut = cut_end(source.text, tokenizer, tokens, query_tokens)
        if cut is None:
            left_out += 1
            continue
        docs.append({"_id": source.place, "context": cut.context, "query": cut.query, "query_tokens": cut.tokens})
    return docs, left_out
