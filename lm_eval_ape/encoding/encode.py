"""From prompts' prefixes and chunks to segments: every piece is encoded once, on its own, or found in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.packed_pieces import PackedLayer, PartOfRow, PiecesTogether
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import (
    BatchReading,
    Encoded,
    EncodedLayer,
    EncodedPrompt,
    Role,
    Segment,
    SegmentedCache,
)
from lm_eval_ape.encoding.devices import ends_early, input_device
from lm_eval_ape.encoding.piece_layers import Layers, alone
from lm_eval_ape.encoding.pieces import Piece, Plan, alike, passes, plan
from lm_eval_ape.encoding.rotation import Move, rotation_of
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.out_of_memory import Room
from lm_eval_ape.settings.strategy import Settings

# The prefix's number beside the chunks' 0, 1, ...
PREFIX = -1
# Receives the number of a prefix or chunk and its logits, `(tokens, vocabulary)`.
OnLogits = Callable[[int, Tensor], None]
# Encoded prefixes by their tokens.
Prefixes = dict[tuple[int, ...], Segment]


class Store(Protocol):
    """Where encoded pieces are kept (see `store.KVStore`)."""

    def get(self, piece: Piece, backend: str) -> Layers | None:
        """A piece's keys and values, if they are kept."""

    def put(self, piece: Piece, backend: str, layers: Layers) -> None:
        """Keep a piece's keys and values."""


def encode_with_logits(
    model: PreTrainedModel, prompt: Prompt, settings: Settings, on_logits: OnLogits, *, used: Counter[str]
) -> EncodedPrompt:
    """Encode a prompt's prefix and chunks, and hand out the logits of their tokens (see `encode_all`).

    Nothing is taken from a store, where there are no logits.

    Args:
        model: A causal language model that `support.check` accepts.
        prompt: The prompt, with at least one chunk.
        settings: `positions`, `shared_prefix`, `keys_from`, `values_from` and `attn_backend` are read.
        on_logits: Called with the number of each prefix (`PREFIX`) and chunk, and its logits.
        used: Counts the attention rungs that served.
    """
    layout = plan(prompt, settings)
    encoder = _Encoder(model, settings.attn_backend, used, logits=True)
    numbers: dict[str, list[int]] = {}
    for number, piece in enumerate(layout.context):
        numbers.setdefault(piece.key, []).append(number)

    def tell(piece: Piece, logits: Tensor) -> None:
        if piece is layout.prefix:
            on_logits(PREFIX, logits)
        for number in numbers.get(piece.key, ()):
            lead = layout.lead if number == 0 else 0
            if lead:
                on_logits(PREFIX, logits[:lead])
            on_logits(number, logits[lead:])

    encoder.on_logits = tell
    prefixes: Prefixes = {}
    pieces = encoder.all([layout], None, prefixes)
    return _encoded_prompts(model, [layout], pieces, prefixes, settings)[0]


def encode_all(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    settings: Settings,
    *,
    used: Counter[str] | None = None,
    store: Store | None = None,
    prefixes: Prefixes | None = None,
) -> list[EncodedPrompt]:
    """Encode several prompts' prefixes and chunks together.

    What several prompts have in common is encoded once; chunks of about the same length, of whichever prompts, share a
    batch. Prompts that differ only in their queries get the very same segments.

    Args:
        model: A causal language model that `support.check` accepts.
        prompts: The prompts; one without chunks gives an encoded prompt without segments.
        settings: `positions`, `shared_prefix`, `keys_from`, `values_from` and `attn_backend` are read.
        used: Counts the attention rungs that served.
        store: Where encoded pieces are looked up and kept.
        prefixes: Prefixes that an earlier call has encoded under the same settings, which are not encoded again; the
            call leaves those of its own prompts there and no others.

    Returns:
        For each prompt its segments, on the model's devices, and the position at which its query starts.
    """
    layouts = [plan(prompt, settings) if prompt.chunks else None for prompt in prompts]
    encoder = _Encoder(model, settings.attn_backend, Counter() if used is None else used)
    known = {} if prefixes is None else prefixes
    pieces = encoder.all([layout for layout in layouts if layout], store, known)
    return _encoded_prompts(model, layouts, pieces, known, settings)


class _Encoder:
    """Runs pieces of prompts through the model and hands out the keys and values that they leave."""

    def __init__(self, model: PreTrainedModel, backend: str, used: Counter[str], *, logits: bool = False) -> None:
        self.model = model
        # Without the head over the vocabulary where no logits are asked for.
        self.network = model if logits else model.get_decoder()
        self.layers = model.config.get_text_config().num_hidden_layers
        self.last = None if logits or not ends_early(model) else EncodedLayer
        self.backend = backend
        self.used = used
        self.on_logits: Callable[[Piece, Tensor], None] | None = None
        self.room = Room(rows="pieces")

    def all(self, layouts: Sequence[Plan], store: Store | None, prefixes: Prefixes) -> dict[str, Layers]:
        """Keys and values of the pieces of some prompts, by the pieces' keys.

        Args:
            layouts: The prompts.
            store: Where pieces are looked up and kept.
            prefixes: Those that are there; gets the prompts' own, and loses all others to make room.
        """
        found: dict[str, Layers] = {}
        asked = {layout.prefix.ids: layout.prefix for layout in layouts if layout.prefix}
        for ids in prefixes.keys() - asked.keys():
            del prefixes[ids]
        firsts = {piece.key for piece in asked.values()}

        def take(piece: Piece, layers: Layers) -> None:
            if piece.key in firsts:
                prefixes[piece.ids] = _prefix(layers)
            else:
                found[piece.key] = layers

        def take_and_keep(piece: Piece, layers: Layers) -> None:
            take(piece, layers)
            if store:
                store.put(piece, self.backend, layers)

        wanted = {piece.key: piece for layout in layouts for piece in layout.pieces}
        missing = []
        for piece in wanted.values():
            if piece.key in firsts and piece.ids in prefixes:
                continue
            if store and (kept := store.get(piece, self.backend)):
                take(piece, kept)
            else:
                missing.append(piece)
        for together in passes(missing):
            self._encode(together, prefixes, take_and_keep)
        return found

    def _encode(
        self,
        pieces: Sequence[Piece],
        prefixes: Mapping[tuple[int, ...], Segment],
        take: Callable[[Piece, Layers], None],
    ) -> None:
        """Encode pieces in one pass, or in smaller ones as far as memory asks for it; each pass's are taken at once."""

        def work(part: slice) -> None:
            for piece, layers in zip(pieces[part], self._pass(pieces[part], prefixes), strict=True):
                take(piece, layers)

        self.room.pieces(work, len(pieces))

    @torch.no_grad()
    def _pass(self, pieces: Sequence[Piece], prefixes: Mapping[tuple[int, ...], Segment]) -> list[Layers]:
        """Keys and values of pieces that are packed in one row, with the prefixes that they see or in front of them."""
        ends = list(accumulate(map(len, pieces), initial=0))
        spans = [slice(first, last) for first, last in pairwise(ends)]
        together: list[PiecesTogether] = []
        row = BatchReading((EncodedPrompt((), start=0),), backend=self.backend, used=self.used)
        cache = SegmentedCache(row, self.layers, partial(PackedLayer, together=together), last=self.last)
        seen = dict(prefixes)
        here = {piece.before for piece in pieces} - prefixes.keys()
        for piece, span in zip(pieces, spans, strict=True):
            if not piece.before and piece.ids in here:
                keys, values = PartOfRow(cache, "keys", span), PartOfRow(cache, "values", span)
                seen[piece.ids] = Segment("prefix", keys, values, piece.positions, (len(piece),))
        device = input_device(self.model)
        for part in alike(pieces, device):
            own = pieces[part]
            segments = (seen[own[0].before],) if own[0].before else ()
            read = EncodedPrompt(segments, start=int(own[0].positions[0]), rows=len(own))
            reading = BatchReading((read,), backend=self.backend, used=self.used)
            together.append(PiecesTogether(reading, ends[part.start], list(map(len, own))))
        output = None
        with reading_segments(self.model), suppress(Encoded):
            output = self.network(
                input_ids=torch.tensor([[token for piece in pieces for token in piece.ids]], device=device),
                position_ids=torch.cat([piece.positions for piece in pieces]).unsqueeze(0).to(device),
                **cache_argument(self.network, cache),
                use_cache=True,
            )
        if self.on_logits and output is not None:
            for piece, span in zip(pieces, spans, strict=True):
                self.on_logits(piece, output.logits[0, span])
        return [[_cut((layer.keys, layer.values), span.start, span.stop) for layer in cache.layers] for span in spans]


def _encoded_prompts(
    model: PreTrainedModel,
    layouts: Sequence[Plan | None],
    pieces: dict[str, Layers],
    prefixes: Prefixes,
    settings: Settings,
) -> list[EncodedPrompt]:
    """Put the pieces of each prompt together; prompts with the same pieces share their segments.

    Pieces are used up layer by layer, so that the copies need the memory of one layer, not of all.
    """
    distinct = {layout.key: layout for layout in layouts if layout}
    moves = {key: _move(model, layout) for key, layout in distinct.items()}
    leads: dict[tuple[str, ...], Layers] = {key: [] for key in distinct}
    contexts: dict[tuple[str, ...], Layers] = {key: [] for key in distinct}
    used = {piece.key for layout in distinct.values() for piece in layout.pieces if piece is not layout.prefix}
    for number in range(len(next(iter(pieces.values()), []))):
        for key, layout in distinct.items():
            parts = [pieces[piece.key][number] for piece in layout.context]
            if layout.lead:
                lead = _cut(parts[0], 0, layout.lead)
                leads[key].append((lead[0].contiguous(), lead[1].contiguous()))
                parts[0] = _cut(parts[0], layout.lead)
            keys, values = _one_row([k for k, _ in parts]), _one_row([v for _, v in parts])
            if move := moves[key]:
                staying = layout.lengths[0]
                keys = torch.cat([keys[:, :, :staying], move.keys(number, keys[:, :, staying:])], dim=2)
            if layout.whole:
                # Oracles (Zhang et al. 2024): the context's keys or values as the ordinary model has them.
                whole = pieces[layout.whole.key][number]
                sequential = _cut(whole, whole[0].shape[2] - sum(layout.lengths))
                keys = sequential[0].contiguous() if settings.keys_from == "sequential" else keys
                values = sequential[1].contiguous() if settings.values_from == "sequential" else values
            contexts[key].append((keys, values))
        for name in used:
            pieces[name][number] = (torch.empty(0), torch.empty(0))
    segments: dict[tuple[str, ...], tuple[Segment, ...]] = {}
    for key, layout in distinct.items():
        prefix = [prefixes[layout.prefix.ids]] if layout.prefix else []
        if layout.lead:
            prefix = [_prefix(leads[key])]
        segments[key] = (*prefix, _segment("context", contexts[key], layout.positions, layout.lengths))
    return [EncodedPrompt(segments[layout.key], layout.query) if layout else EncodedPrompt((), 0) for layout in layouts]


def _move(model: PreTrainedModel, layout: Plan) -> Move | None:
    """Where the chunks after the first one go from where they were encoded; None where all stay."""
    if layout.encoded is None or len(layout.lengths) == 1:
        return None
    first = layout.lengths[0]
    return rotation_of(model).move(layout.encoded[first:], layout.positions[first:])


def _cut(part: tuple[Tensor, Tensor], first: int, last: int | None = None) -> tuple[Tensor, Tensor]:
    """Some tokens of a layer's keys and values."""
    return part[0][:, :, first:last], part[1][:, :, first:last]


def _one_row(parts: list[Tensor]) -> Tensor:
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=2)


def _prefix(layers: Layers) -> Segment:
    length = layers[0][0].shape[2]
    return _segment("prefix", [(alone(k), alone(v)) for k, v in layers], torch.arange(length), (length,))


def _segment(role: Role, layers: Layers, positions: Tensor, lengths: tuple[int, ...]) -> Segment:
    return Segment(role, tuple(k for k, _ in layers), tuple(v for _, v in layers), positions, lengths)
