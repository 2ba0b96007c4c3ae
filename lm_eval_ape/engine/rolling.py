"""The log-likelihood of a whole text as a strategy reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, chain

import torch
from torch import Tensor

from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.attention.token_passes import passes
from lm_eval_ape.encoding.encode import PREFIX
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt


@torch.no_grad()
def rolling_loglikelihood(
    engine: Engine, prompt: Prompt, prefix_token: int, seen: Callable[[EncodedPrompt], None] = lambda encoded: None
) -> float:
    """Sum the log-probabilities of all of a prompt's tokens, each given what it sees under the strategy.

    A chunk's first token follows the prefix, its others their own chunk; the query's first token follows the last
    chunk, its others the prefix, all chunks (with T and S) and the query. A later chunk without a shared prefix sees
    nothing before its first token, which is scored, as the harness scores an empty context, after `prefix_token`
    alone. With one chunk and T=S=1 this is the sequential log-likelihood.

    What follows a recomputed token is scored by its new logits, and a chunk's first token, if it is recomputed, by the
    end of the chunk before it; so with all tokens recomputed this too is the sequential log-likelihood. It is the
    query's first token alone that chooses, since the others are scored.

    Args:
        engine: The model under its settings.
        prompt: The text, cut, with at least one chunk.
        prefix_token: The token that the harness puts before every text (BOS or EOS); it is not scored.
        seen: Called with the prompt's context.

    Returns:
        Log-likelihood in nats.
    """
    prompt = replace(prompt, prefix=(prefix_token, *prompt.prefix))
    starts = [0, *accumulate(map(len, prompt.chunks))]
    following = (*chain.from_iterable(prompt.chunks), *prompt.query[:1])[1:]
    # Log-probability of what follows each token of the context.
    after = torch.empty(len(following), dtype=torch.float64)
    before: list[Tensor] = []
    total = 0.0

    def score_piece(number: int, logits: Tensor) -> None:
        nonlocal total
        if number == PREFIX:
            total += float(_each(logits[:-1], prompt.prefix[1:]).sum())
            before.append(logits[-1:].clone())
        else:
            own = slice(starts[number], starts[number + 1])
            after[own] = _each(logits, following[own])

    def score_recomputed(tokens: list[int], logits: Tensor) -> None:
        after[tokens] = _each(logits, [following[token] for token in tokens])

    encoded = engine.encode_with_logits(replace(prompt, query=prompt.query[:1]), score_piece, score_recomputed)
    seen(encoded)
    recomputed = set(encoded.recomputed)
    for number, chunk in enumerate(prompt.chunks):
        first, end = starts[number : number + 2]
        if first in recomputed:
            total += float(after[first - 1])
        elif number > 0 and not engine.settings.shared_prefix:
            alone = engine.sequential_tail().read([prefix_token], keep=1)[0]
            total += float(_each(alone, chunk[:1]).sum())
        else:
            total += float(_each(before[0], chunk[:1]).sum())
        total += float(after[first : end - 1].sum())
    total += float(after[-1])
    if len(prompt.query) > 1:
        with engine.tail(encoded) as tail:
            # The query is scored, so tokens that choose chunks together would see what they are to predict.
            for part in passes(len(prompt.query) - 1, 1, engine.settings.selection):
                logits = tail.read(prompt.query[part], keep=part.stop - part.start)
                total += float(_each(logits[0], prompt.query[part.start + 1 : part.stop + 1]).sum())
    return total


def _each(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probability of a token by each of some logits, `(tokens,)`, in float64 on the CPU."""
    targets = torch.tensor(ids, dtype=torch.long, device=logits.device).unsqueeze(-1)
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return precise.log_softmax(-1).gather(-1, targets)[:, 0].double().cpu()
