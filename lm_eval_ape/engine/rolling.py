"""The log-likelihood of a whole text as a strategy reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lm_eval_ape.attention.token_passes import passes
from lm_eval_ape.encoding.encode import PREFIX
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt


@torch.no_grad()
def rolling_loglikelihood(engine: Engine, prompt: Prompt, prefix_token: int) -> float:
    """Sum the log-probabilities of all of a prompt's tokens, each given what it sees under the strategy.

    A chunk's first token follows the prefix, its others their own chunk; the query's first token follows the last
    chunk, its others the prefix, all chunks (with T and S) and the query. A later chunk without a shared prefix sees
    nothing before its first token, which is scored, as the harness scores an empty context, after `prefix_token`
    alone. With one chunk and T=S=1 this is the sequential log-likelihood.

    Args:
        engine: The model under its settings.
        prompt: The text, cut, with at least one chunk.
        prefix_token: The token that the harness puts before every text (BOS or EOS); it is not scored.

    Returns:
        Log-likelihood in nats.
    """
    prompt = replace(prompt, prefix=(prefix_token, *prompt.prefix))
    total = 0.0
    ends: dict[int, Tensor] = {}

    def score(logits: Tensor, ids: Sequence[int]) -> float:
        targets = torch.tensor(ids, device=logits.device).unsqueeze(-1)
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return float(precise.log_softmax(-1).gather(-1, targets).sum())

    def score_piece(number: int, logits: Tensor) -> None:
        nonlocal total
        piece = prompt.prefix if number == PREFIX else prompt.chunks[number]
        total += score(logits[:-1], piece[1:])
        ends[number] = logits[-1:].clone()

    encoded = engine.encode_with_logits(prompt, score_piece)
    for number, chunk in enumerate(prompt.chunks):
        before = ends[PREFIX]
        if number > 0 and not engine.settings.shared_prefix:
            before = engine.sequential_tail().read([prefix_token], keep=1)[0]
        total += score(before, chunk[:1])
    total += score(ends[len(prompt.chunks) - 1], prompt.query[:1])
    if len(prompt.query) > 1:
        with engine.tail(encoded) as tail:
            # The query is scored, so tokens that choose chunks together would see what they are to predict.
            for part in passes(len(prompt.query) - 1, 1, engine.settings.selection):
                logits = tail.read(prompt.query[part], keep=part.stop - part.start)
                total += score(logits[0], prompt.query[part.start + 1 : part.stop + 1])
    return total
