"""What transformers' `generate` needs to go on from prompts whose chunks were encoded apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import EncodedPrompt, together
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt


def whole_prompts(prompts: Sequence[Prompt], padding: int) -> tuple[Tensor, Tensor]:
    """Prompts as `generate` gets them: all that was read, in one row each, padded on the left.

    Args:
        prompts: The prompts.
        padding: The padding token.

    Returns:
        Token ids and attention mask, `(prompts, longest)` each.
    """
    rows = [prompt.ids for prompt in prompts]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    return ids, mask


def put_together(pieces: Sequence[Tensor], padding: int) -> Tensor:
    """What `generate` gave for parts of a batch, which may end after different numbers of tokens."""
    width = max(piece.shape[1] for piece in pieces)
    return torch.cat([pad(piece, (0, width - piece.shape[1]), value=padding) for piece in pieces])


@contextmanager
def generating(
    engine: Engine, prompts: Sequence[Prompt], encoded_prompts: Sequence[EncodedPrompt], mask: Tensor
) -> Iterator[dict[str, Any]]:
    """Arguments with which `generate` reads whole prompts' chunks as they were encoded, while the context lasts.

    `generate` gets the whole prompts, for all of its rules about what was said before, and a cache that has all of
    their tokens but the last ones, which are the queries; a shorter query's row is padded there once more.

    Args:
        engine: The model under its settings.
        prompts: The prompts.
        encoded_prompts: What `encode_all` made of them.
        mask: Attention mask of `whole_prompts`, on the model's device.

    Yields:
        `attention_mask`, `position_ids` and the cache.
    """
    width = max(len(prompt.query) for prompt in prompts)
    before = mask.shape[1] - width
    starts = [
        encoded.start - width + len(prompt.query) for encoded, prompt in zip(encoded_prompts, prompts, strict=True)
    ]
    placed = [replace(encoded, start=start) for encoded, start in zip(encoded_prompts, starts, strict=True)]
    steps = torch.arange(-before, width, device=mask.device)
    positions = torch.tensor(starts, device=mask.device)[:, None] + steps
    mask = mask.clone()
    for row, prompt in enumerate(prompts):
        mask[row, before : mask.shape[1] - len(prompt.query)] = 0
    with reading_segments(engine.model), _lengths_unwarned():
        yield {
            "attention_mask": mask,
            "position_ids": positions.clamp(min=0),
            **cache_argument(None, engine.cache(together(placed), before=before)),
        }


@contextmanager
def _lengths_unwarned() -> Iterator[None]:
    """Let transformers not warn of prompts longer than the model's window: it counts tokens, which share positions."""
    logger = logging.getLogger("transformers.generation.stopping_criteria")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
