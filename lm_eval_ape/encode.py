"""From a prompt's prefix and chunks to segments: every piece is encoded once, on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_ape.positions import chunk_positions, query_start
from lm_eval_ape.prompt import Prompt
from lm_eval_ape.segmented_attention import reading_segments
from lm_eval_ape.segments import Reader, Reading, Role, Segment, SegmentedCache
from lm_eval_ape.strategy import Settings

# Tokens that one forward pass may hold: enough to keep a GPU busy, few enough to bound activations.
ENCODE_TOKENS = 8192

# The prefix's number beside the chunks' 0, 1, ...
PREFIX = -1
# Receives the numbers of pieces and their logits, `(pieces, tokens, vocabulary)`.
OnLogits = Callable[[Sequence[int], Tensor], None]
# Keys and values of each layer, `(chunks, kv_heads, tokens, head_dim)`.
Layers = list[tuple[Tensor, Tensor]]


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids must go: offloaded weights lie nowhere, but their hook knows where they are computed."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)


def encode(
    model: PreTrainedModel,
    prompt: Prompt,
    settings: Settings,
    *,
    used: Counter[str] | None = None,
    on_logits: OnLogits | None = None,
) -> Reader:
    """Encode a prompt's prefix and chunks.

    A chunk attends to itself, causally, and to the prefix if that is shared. Without a shared prefix the prefix and
    the first chunk are one piece, as in the ordinary text, and later chunks stand alone; either way one chunk is
    exactly the sequential prompt.

    Args:
        model: A causal language model that `support.check` accepts.
        prompt: The prompt; one without chunks gives a reader without segments.
        settings: `positions`, `shared_prefix`, `keys_from`, `values_from` and `attn_backend` are read.
        used: Counts the attention rungs that served.
        on_logits: Called with the logits of every piece, which are not computed otherwise.

    Returns:
        The segments, on the model's devices, and the position at which the query starts.
    """
    if not prompt.chunks:
        return Reader((), 0)
    encoder = _Encoder(model, settings.attn_backend, Counter() if used is None else used, on_logits)
    lengths = [len(chunk) for chunk in prompt.chunks]
    start = len(prompt.prefix)
    positions = chunk_positions(lengths, start, settings.positions)
    prefix_positions = torch.arange(start)
    prefix = None
    pieces: list[Layers] = []
    if prompt.prefix and settings.shared_prefix:
        layers, logits = encoder.run([prompt.prefix], [prefix_positions])
        encoder.tell([PREFIX], logits)
        prefix = _segment("prefix", [layers], prefix_positions, [start])
    elif prompt.prefix:
        row = torch.cat([prefix_positions.to(positions[0].dtype), positions[0]])
        layers, logits = encoder.run([(*prompt.prefix, *prompt.chunks[0])], [row])
        encoder.tell([PREFIX], logits[:, :start])
        encoder.tell([0], logits[:, start:])
        own = [(k[:, :, :start], v[:, :, :start]) for k, v in layers]
        prefix = _segment("prefix", [own], prefix_positions, [start])
        pieces.append([(k[:, :, start:], v[:, :, start:]) for k, v in layers])
    shared = prefix if settings.shared_prefix else None
    for batch in _batches(range(len(pieces), len(lengths)), lengths):
        ids, rows = [prompt.chunks[number] for number in batch], [positions[number] for number in batch]
        layers, logits = encoder.run(ids, rows, shared)
        encoder.tell(batch, logits)
        pieces.append(layers)
    context = _segment("context", pieces, torch.cat(positions), lengths)
    if "sequential" in (settings.keys_from, settings.values_from):
        context = _with_sequential(context, encoder, prompt, settings)
    segments = (context,) if prefix is None else (prefix, context)
    mode = "serial" if settings.keys_from == "sequential" else settings.positions
    return Reader(segments, query_start(lengths, start, mode))


def _with_sequential(context: Segment, encoder: _Encoder, prompt: Prompt, settings: Settings) -> Segment:
    """The context with keys or values as the ordinary model has them, for oracles (Zhang et al. 2024)."""
    start = len(prompt.prefix)
    ids = (*prompt.prefix, *chain.from_iterable(prompt.chunks))
    layers, _ = encoder.run([ids], [torch.arange(len(ids))])
    sequential = _segment("context", [[(k[:, :, start:], v[:, :, start:]) for k, v in layers]], context.positions, [])
    if settings.values_from == "sequential":
        context = replace(context, values=sequential.values)
    if settings.keys_from == "sequential":
        # Positions go with the keys, which have been rotated by them.
        context = replace(context, keys=sequential.keys, positions=torch.arange(start, len(ids)))
    return context


class _Encoder:
    """Runs pieces of a prompt through the model and hands out the keys and values that they leave."""

    def __init__(self, model: PreTrainedModel, backend: str, used: Counter[str], on_logits: OnLogits | None) -> None:
        self.model = model
        # Without the head over the vocabulary where nobody asks for logits.
        self.network = model if on_logits else model.get_decoder()
        self.layers = model.config.get_text_config().num_hidden_layers
        self.backend = backend
        self.used = used
        self.on_logits = on_logits

    @torch.no_grad()
    def run(
        self, ids: Sequence[Sequence[int]], positions: Sequence[Tensor], prefix: Segment | None = None
    ) -> tuple[Layers, Tensor]:
        """Encode pieces of one length in one batch; their logits, `(pieces, tokens, vocabulary)`, if asked for."""
        segments = () if prefix is None else (prefix,)
        reader = Reader(segments, start=int(positions[0][0]), rows=len(ids))
        cache = SegmentedCache(Reading((reader,), backend=self.backend, used=self.used), self.layers)
        device = input_device(self.model)
        with reading_segments(self.model):
            output = self.network(
                input_ids=torch.tensor(ids, device=device),
                position_ids=torch.stack(list(positions)).to(device),
                past_key_values=cache,
                use_cache=True,
            )
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        return layers, output.logits if self.on_logits else torch.empty(len(ids), 0, 0)

    def tell(self, numbers: Sequence[int], logits: Tensor) -> None:
        """Hand out the logits of pieces, if asked for."""
        if self.on_logits:
            self.on_logits(numbers, logits)


def _batches(numbers: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Neighbouring chunks of one length, together at most `ENCODE_TOKENS` unless one alone has more."""
    for length, group in groupby(numbers, key=lambda number: lengths[number]):
        equal = list(group)
        size = max(1, ENCODE_TOKENS // length)
        yield from (equal[first : first + size] for first in range(0, len(equal), size))


def _segment(role: Role, pieces: list[Layers], positions: Tensor, lengths: Sequence[int]) -> Segment:
    """Lay pieces, each `(chunks, kv_heads, tokens, head_dim)` a layer, out in one row a layer.

    The pieces are used up layer by layer, so that the copy needs the memory of one layer, not of all.
    """
    keys, values = [], []
    for layer in range(len(pieces[0])):
        keys.append(_one_row([piece[layer][0] for piece in pieces]))
        values.append(_one_row([piece[layer][1] for piece in pieces]))
        for piece in pieces:
            piece[layer] = (keys[-1][:, :, :0], values[-1][:, :, :0])
    return Segment(role, tuple(keys), tuple(values), positions, tuple(lengths))


def _one_row(tensors: list[Tensor]) -> Tensor:
    rows = [tensor.transpose(0, 1).flatten(1, 2).unsqueeze(0) for tensor in tensors]
    return torch.cat(rows, dim=2)
