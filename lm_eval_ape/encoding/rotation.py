"""Keys that were encoded at one position, moved to another: rotary position embeddings are rotations.

A layer puts a linear map A(a) on the key of a token at position a, which turns pairs of its dimensions by angles that
grow with a (RoFormer, Su et al. 2021). The same key at position b is A(b) A(a)^-1 times what it is at a. Both maps are
made of the cosines and sines of the model's own rotary module, so that every kind of frequencies that transformers
knows is met, with its rounding. Which dimensions make a pair is found on the model itself: a token's keys are encoded
at two positions, and the way that takes the one to the other is the model's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, EncodedPrompt, SegmentedCache
from lm_eval_ape.encoding.devices import input_device
from lm_eval_ape.errors import ApeError

# Positions at which the pairs are found; a rotation by their distance turns slow dimensions little and fast ones often.
_PROBED = (1, 98)
# Largest difference of moved keys from keys encoded there, as a share of the largest key, that rounding explains:
# models take their cosines in float32 whatever their dtype. Pairs that are not the model's differ by about 1.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
_HALF_TOLERANCE = 0.05


class _Pairs(NamedTuple):
    """Which dimensions of a key turn together.

    Attributes:
        table: How the module's cosines hold one value a pair: `halves` (twice, one after the other), `neighbours` (each
            twice) or `once`.
        order: `halves`, dimension i and i + width / 2; `neighbours`, dimensions 2 i and 2 i + 1.
        first: The first dimension that turns.
        width: How many do.
    """

    table: Literal["halves", "neighbours", "once"]
    order: Literal["halves", "neighbours"]
    first: int
    width: int

    def values(self, table: Tensor) -> Tensor:
        """One cosine or sine a pair, `(..., width / 2)`."""
        if self.table == "once":
            return table
        return table[..., : self.width // 2] if self.table == "halves" else table[..., ::2]

    def turn(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn the pairs of keys, `(..., tokens, head_dim)`, by angles of cosines and sines `(tokens, width / 2)`."""
        turning = keys[..., self.first : self.first + self.width]
        if self.order == "halves":
            one, other = turning.chunk(2, dim=-1)
            turned = torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)
        else:
            one, other = turning[..., ::2], turning[..., 1::2]
            turned = torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1).flatten(-2)
        if self.width == keys.shape[-1]:
            return turned
        return torch.cat([keys[..., : self.first], turned, keys[..., self.first + self.width :]], dim=-1)


class _Call(NamedTuple):
    """A call of a rotary module, to be made again at other positions."""

    module: nn.Module
    arguments: dict[str, Any]

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines at positions `(tokens,)`, `(tokens, width)` each, in float32 at least."""
        hidden = next(value for value in self.arguments.values() if isinstance(value, Tensor))
        given = {**self.arguments, "position_ids": positions[None].to(hidden.device)}
        cos, sin = _cos_sin(self.module(**given))
        precision = torch.promote_types(cos.dtype, torch.float32)
        return cos[0].to(precision), sin[0].to(precision)


class _LayerTurn(NamedTuple):
    """How one layer's keys turn: the number of its call in `Rotation.calls`, and its pairs; None where none turns."""

    call: int
    pairs: _Pairs | None


class Move:
    """Tokens that go from some positions to others.

    Args:
        rotation: The model's.
        before: Where they are, `(tokens,)`.
        after: Where they go, `(tokens,)`.
    """

    def __init__(self, rotation: Rotation, before: Tensor, after: Tensor) -> None:
        self._rotation = rotation
        self._before = before
        self._after = after
        self._angles: dict[tuple[int, _Pairs, torch.device], tuple[Tensor, Tensor]] = {}

    def keys(self, layer: int, keys: Tensor) -> Tensor:
        """A layer's keys where they go, `(1, kv_heads, tokens, head_dim)`; rotated in float32 at least."""
        turn = self._rotation.layers[layer]
        if turn.pairs is None:
            return keys
        cos, sin = self._cos_sin(turn.call, turn.pairs, keys.device)
        precision = torch.promote_types(keys.dtype, torch.float32)
        return turn.pairs.turn(keys.to(precision), cos.to(precision), sin.to(precision)).to(keys.dtype)

    def _cos_sin(self, call: int, pairs: _Pairs, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine of A(after) A(before)^-1; the inverse undoes what the module scales its cosines by, too."""
        if (call, pairs, device) not in self._angles:
            way = self._rotation.calls[call]
            (c0, s0), (c1, s1) = (map(pairs.values, way.at(places)) for places in (self._before, self._after))
            # In double precision, so that the inverse is one although cosine and sine are rounded.
            c0, s0, c1, s1 = (table.double() for table in (c0, s0, c1, s1))
            size = c0 * c0 + s0 * s0
            cos, sin = (c1 * c0 + s1 * s0) / size, (s1 * c0 - c1 * s0) / size
            self._angles[call, pairs, device] = cos.to(device), sin.to(device)
        return self._angles[call, pairs, device]


class Rotation:
    """How a model's keys turn with their positions.

    Args:
        model: The model.

    Attributes:
        calls: The model's distinct calls of rotary modules.
        layers: Of each layer how it turns.

    Raises:
        ApeError: Some layer's keys do not turn in any way that is known.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        probed = _probe(model)
        self.calls = probed.calls
        self.layers: list[_LayerTurn] = []
        before, after = (torch.tensor([place]) for place in _PROBED)
        tolerance = _TOLERANCE.get(model.dtype, _HALF_TOLERANCE)
        for layer, (call, keys) in enumerate(zip(probed.call_of, probed.keys, strict=True)):
            self.layers.append(_LayerTurn(0, None))
            if call is None:
                if _differs(keys[:1], keys[1:]) <= tolerance:
                    continue
                raise ApeError(
                    _refusal(model, layer, "does not get its rotary embeddings from a module of the decoder")
                )
            cos, _ = self.calls[call].at(before)
            known = [turn.pairs for turn in self.layers[:-1] if turn.call == call]
            for pairs in [*known[-1:], None, *_ways(cos.shape[-1], keys.shape[-1])]:
                self.layers[layer] = _LayerTurn(call, pairs)
                if _differs(Move(self, before, after).keys(layer, keys[:1]), keys[1:]) <= tolerance:
                    break
            else:
                raise ApeError(_refusal(model, layer, "turns its keys in a way that is not known"))

    def move(self, before: Tensor, after: Tensor) -> Move:
        """Tokens that go from some positions to others, `(tokens,)` each."""
        return Move(self, before, after)


_FOUND: WeakKeyDictionary[PreTrainedModel, Rotation] = WeakKeyDictionary()


def rotation_of(model: PreTrainedModel) -> Rotation:
    """How a model's keys turn with their positions, found once.

    Raises:
        ApeError: Some layer's keys do not turn in any way that is known.
    """
    if model not in _FOUND:
        _FOUND[model] = Rotation(model)
    return _FOUND[model]


class _Probed(NamedTuple):
    """What a pass over one token at two positions shows.

    Attributes:
        calls: Distinct calls of rotary modules.
        call_of: Of each layer, the number of the call whose result it gets; None for none.
        keys: Of each layer, `(2, kv_heads, 1, head_dim)`.
    """

    calls: list[_Call]
    call_of: list[int | None]
    keys: list[Tensor]


@torch.no_grad()
def _probe(model: PreTrainedModel) -> _Probed:
    decoder = model.get_decoder()
    made: list[tuple[_Call, Any]] = []
    given: dict[int, Any] = {}
    layers = model.config.get_text_config().num_hidden_layers
    # By our own attention, which is as precise as the weights are.
    cache = SegmentedCache(BatchReading((EncodedPrompt((), 0, rows=2),)), layers)
    with reading_segments(model), ExitStack() as hooks:

        def hook(handle: Any) -> None:
            hooks.callback(handle.remove)

        def made_by(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
            bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            if "position_ids" in bound:
                made.append((_Call(module, dict(bound)), result))

        for module in decoder.modules():
            if "rotary" in type(module).__name__.lower():
                hook(module.register_forward_hook(made_by, with_kwargs=True))
        for number, layer in enumerate(getattr(decoder, "layers", ())):

            def note(_: nn.Module, __: Any, kwargs: dict[str, Any], number: int = number) -> None:
                given[number] = kwargs.get("position_embeddings")

            hook(layer.register_forward_pre_hook(note, with_kwargs=True))
        device = input_device(model)
        token = min(5, model.config.get_text_config().vocab_size - 1)
        decoder(
            input_ids=torch.full((2, 1), token, device=device),
            position_ids=torch.tensor(_PROBED, device=device)[:, None],
            **cache_argument(decoder, cache),
            use_cache=True,
        )
    makers = [_maker(given.get(layer), made) for layer in range(layers)]
    return _Probed([call for call, _ in made], makers, [layer.keys for layer in cache.layers])


def _maker(embeddings: Any, made: Sequence[tuple[_Call, Any]]) -> int | None:
    """The number of the call that made a layer's rotary embeddings."""
    if embeddings is None:
        return None
    cos, sin = _cos_sin(embeddings)
    for number, (_, result) in enumerate(made):
        c, s = _cos_sin(result)
        if torch.equal(c.to(cos.device), cos) and torch.equal(s.to(sin.device), sin):
            return number
    return None


def _cos_sin(embeddings: Any) -> tuple[Tensor, Tensor]:
    """Cosines and sines of what a rotary module gives: a pair, or complex numbers."""
    if isinstance(embeddings, Tensor):
        return embeddings.real, embeddings.imag
    cos, sin = embeddings
    return cos, sin


def _ways(table: int, head_dim: int) -> Iterator[_Pairs]:
    """All ways known in which a table of so many cosines turns the pairs of a head."""
    for kind, width in (("halves", table), ("neighbours", table), ("once", 2 * table)):
        for order in ("halves", "neighbours"):
            for first in sorted({0, head_dim - width}):
                if width % 2 == 0 and width <= head_dim:
                    yield _Pairs(kind, order, first, width)  # type: ignore[arg-type]


def _differs(got: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest number; infinite where something is not finite."""
    share = (got.double() - expected.double()).abs().max() / expected.double().abs().max()
    return float(share.nan_to_num(nan=torch.inf))


def _refusal(model: PreTrainedModel, layer: int, reason: str) -> str:
    return (
        f"{type(model).__name__} cannot run with positions=serial: layer {layer} {reason}, so that keys encoded at one "
        "position cannot be moved to another; use positions=shared, without recompute."
    )
