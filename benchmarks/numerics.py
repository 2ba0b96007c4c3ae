"""What half precision costs: divergences, log-sum-exps and the merge against float64, on the same requests.

    python benchmarks/numerics.py                # the tables of docs/results/numerics.md

The first table reads prompts of the shipped model under APE in each precision, weights rounded to it, and compares with
float64: the KL of the next-token distributions after the query, and the error of the context's log-sum-exps of all
layers, heads and query tokens; `arithmetic alone` compares with float64's reading of the very same rounded weights.
The second table is the merge alone: queries over a prefix and a context of random keys, with log-sum-exps kept in
float32 (as here) or rounded to the outputs' precision.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from flags import parse, parser, positive
from timing import Table, finish
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lm_eval_ape.attention.attend import attend
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.merge import Attended, merge, scale_context
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, SegmentedCache
from lm_eval_ape.calibration.objective.divergence import forward_kl, log_probabilities
from lm_eval_ape.encoding.rotation import rotation_of
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings, resolve

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Watched:
    """Takes the place of a probe and keeps the context's log-sum-exps of every layer, `(rows, heads, query)` each."""

    lses: list[Tensor] = field(default_factory=list)

    def record(self, place: tuple[int, int], asked: Any, parts: Sequence[Any], lse: Tensor) -> None:
        """Keep a layer's."""
        self.lses += [part.attended.lse.double() for part in parts if part.role == "context"]


class Read(NamedTuple):
    """A query read over its chunks: log-probabilities `(vocabulary,)` after it, and log-sum-exps of the context."""

    log_probs: Tensor
    lses: Tensor


@torch.no_grad()
def read(model: PreTrainedModel, prompt: Prompt, settings: Settings) -> Read:
    """Encode a prompt and read its query."""
    watched = Watched()
    encoded = Engine(model, settings).encode(prompt)
    factors = settings.attn_temperature, settings.attn_scale
    reading = BatchReading((encoded,), *factors, scale_mode=settings.scale_mode, probe=watched)
    ids = torch.tensor([prompt.query], device=model.device)
    positions = torch.arange(encoded.start, encoded.start + ids.shape[1], device=model.device)[None]
    with reading_segments(model):
        cache = SegmentedCache(reading, model.config.num_hidden_layers)
        logits = model(ids, position_ids=positions, **cache_argument(model, cache)).logits[0, -1]
    return Read(log_probabilities(logits).double(), torch.stack(watched.lses))


class Cost(NamedTuple):
    """How far a precision is from float64 on some prompts.

    Attributes:
        mean_kl: KL(float64 || precision) of the next token, nats, mean over prompts.
        max_kl: The largest.
        arithmetic_kl: Mean KL from float64's arithmetic with the very same rounded weights.
        max_lse: Largest error of a context's log-sum-exp.
        tokens: Share of prompts with the same next token.
    """

    mean_kl: float
    max_kl: float
    arithmetic_kl: float
    max_lse: float
    tokens: float


def in_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy as it would be loaded in a precision: the frequencies of rotary embeddings stay in float32."""
    frequencies = {name: buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    rounded = copy.deepcopy(model).to(dtype)
    for name, buffer in frequencies.items():
        module, _, own = name.rpartition(".")
        setattr(rounded.get_submodule(module), own, buffer)
    return rounded


def cost(model: PreTrainedModel, prompts: Sequence[Prompt], dtype: torch.dtype, settings: Settings) -> Cost:
    """What a precision costs.

    Args:
        model: In float64.
        prompts: With at least one chunk each.
        dtype: The precision.
        settings: How they are encoded and read.
    """
    rounded = in_precision(model, dtype)
    same_weights = in_precision(rounded, torch.float64)
    rows = [[read(each, prompt, settings) for each in (model, rounded, same_weights)] for prompt in prompts]
    kls = [float(forward_kl(exact.log_probs, half.log_probs)) for exact, half, _ in rows]
    own = [float(forward_kl(same.log_probs, half.log_probs)) for _, half, same in rows]
    lses = [float((exact.lses - half.lses).abs().max()) for exact, half, _ in rows]
    agreed = [int(exact.log_probs.argmax() == half.log_probs.argmax()) for exact, half, _ in rows]
    count = len(rows)
    return Cost(sum(kls) / count, max(kls), sum(own) / count, max(lses), sum(agreed) / count)


class MergeCost(NamedTuple):
    """Largest relative errors of a merge in half precision against float64, over many queries.

    Attributes:
        lse: Error of the context's log-sum-exp, absolute.
        kept: Error of the context's share of the output with log-sum-exps in float32.
        rounded: The same with log-sum-exps rounded to half precision before the merge.
    """

    lse: float
    kept: float
    rounded: float


def merge_cost(dtype: torch.dtype, keys: int, *, queries: int = 256, width: int = 64) -> MergeCost:
    """Merge a prefix of 16 keys and a context of `keys` keys, all rounded to `dtype`, with T = S = 0.9."""
    generator = torch.Generator().manual_seed(keys)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    query = normal(1, 1, queries, width)
    sides = [(normal(1, 1, count, width), normal(1, 1, count, width)) for count in (16, keys)]

    def parts(precision: torch.dtype, lses: torch.dtype | None = None) -> tuple[Attended, Attended]:
        found = []
        for (key, value), temperature in zip(sides, (1.0, 0.9), strict=True):
            scaling = width**-0.5 / temperature
            one = attend(query.to(precision), key.to(precision), value.to(precision), scaling=scaling)
            found.append(one if lses is None else Attended(one.out, one.lse.to(lses).to(one.lse.dtype)))
        return found[0], scale_context(found[1], 0.9, 0.9, "lse")

    def share(pair: tuple[Attended, Attended]) -> Tensor:
        return torch.exp(pair[1].lse.double() - merge(pair).lse.double())

    exact, kept, rounded = parts(torch.float64), parts(dtype), parts(dtype, dtype)
    errors = [float((share(pair) / share(exact) - 1).abs().max()) for pair in (kept, rounded)]
    return MergeCost(float((kept[1].lse.double() - exact[1].lse).abs().max()) / 0.81, *errors)


class MoveCost(NamedTuple):
    """Largest errors of a chunk's keys as shares of the largest key, over layers.

    Attributes:
        moved: Of keys encoded at one position and moved to another, from float64 keys encoded there.
        there: Of keys that were encoded there.
        first_layer: Of moved keys from keys of the same precision encoded there, in layer 0, whose inputs are the same.
    """

    moved: float
    there: float
    first_layer: float


def move_cost(model: PreTrainedModel, ids: Sequence[int], dtype: torch.dtype, distance: int) -> MoveCost:
    """What moving keys costs in a precision.

    Args:
        model: In float64.
        ids: A chunk that sees nothing but itself.
        dtype: The precision.
        distance: How far its keys are moved.
    """
    rounded = in_precision(model, dtype)
    near, far = torch.arange(len(ids)), torch.arange(len(ids)) + distance
    exact, there, here = keys_at(model, ids, far), keys_at(rounded, ids, far), keys_at(rounded, ids, near)
    move = rotation_of(rounded).move(near, far)
    moved = [move.keys(layer, keys) for layer, keys in enumerate(here)]

    def error(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
        pairs = zip(got, expected, strict=True)
        return max(float((a.double() - b.double()).abs().max() / b.double().abs().max()) for a, b in pairs)

    return MoveCost(error(moved, exact), error(there, exact), error(moved[:1], there[:1]))


@torch.no_grad()
def keys_at(model: PreTrainedModel, ids: Sequence[int], positions: Tensor) -> list[Tensor]:
    """A chunk's keys in each layer, by the model's own attention."""
    cache = DynamicCache()
    model.get_decoder()(torch.tensor([ids]), position_ids=positions[None], **cache_argument(model, cache))
    return [layer.keys for layer in cache.layers]


def pocket_prompts(count: int, chunks: int) -> tuple[PreTrainedModel, list[Prompt]]:
    """The shipped model in float64, and its two-hop test prompts cut into chunks."""
    from lm_eval_ape.harness.ape_hf import ApeHFLM
    from lm_eval_ape.harness.catalogue import Catalogue
    from lm_eval_ape.harness.samples import gather
    from lm_eval_ape.settings.options import HarnessOptions

    lm = ApeHFLM("pocket", dtype="float64", device="cpu", chunking="passages", max_chunks=chunks)
    tasks = Catalogue(HarnessOptions()).load(["ape_pocket_twohop_test"])
    return lm.model, [
        sample.prompt for sample in gather(lm, tasks, HarnessOptions(), num_tokens=8, limit=count).samples
    ]


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument(
        "--prompts", type=positive, default=64, help="of the shipped model's test (default: %(default)s)"
    )
    flags.add_argument("--chunks", type=positive, default=5, help="(default: %(default)s)")
    flags.add_argument("--keys", type=positive, nargs="+", default=[128, 1024, 8192], help="(default: %(default)s)")
    flags.add_argument("--distances", type=positive, nargs="+", default=[64, 1024, 7000], help="(default: %(default)s)")
    args = parse(flags)
    model, prompts = pocket_prompts(args.prompts, args.chunks)
    headers = ["weights and keys in", "mean KL, nats", "largest KL", "mean KL, arithmetic alone"]
    read_table = Table(
        f"Reading {len(prompts)} two-hop prompts of the shipped model in {args.chunks} chunks, against float64",
        [*headers, "largest error of a context's log-sum-exp", "same next token"],
    )
    figures: list[dict[str, Any]] = []
    for name, dtype in DTYPES.items():
        found = cost(model, prompts, dtype, resolve({}))
        cells = [f"{value:.1e}" for value in found[:-1]]
        read_table.add(name, *cells, f"{found.tokens:.3f}")
        figures.append({"dtype": name, **found._asdict()})
    merge_table = Table(
        "Merging 16 prefix keys and a context, T = S = 0.9: largest errors over 256 queries",
        [
            "precision",
            "context keys",
            "log-sum-exp",
            "context's weight, here",
            "context's weight, log-sum-exps rounded",
        ],
    )
    for name, dtype in DTYPES.items():
        for keys in args.keys:
            merged = merge_cost(dtype, keys)
            merge_table.add(name, str(keys), f"{merged.lse:.1e}", f"{merged.kept:.1e}", f"{merged.rounded:.1e}")
            figures.append({"dtype": name, "keys": keys, **merged._asdict()})
    move_table = Table(
        "Keys of a chunk of the shipped model, moved: largest errors as shares of the largest key",
        ["precision", "moved by", "moved, from float64", "encoded there, from float64", "moved from encoded, layer 0"],
    )
    for name, dtype in DTYPES.items():
        for distance in args.distances:
            moved = move_cost(model, prompts[0].chunks[0], dtype, distance)
            move_table.add(name, str(distance), *(f"{value:.1e}" for value in moved))
            figures.append({"dtype": name, "distance": distance, **moved._asdict()})
    finish(args, [read_table, merge_table, move_table], figures)


if __name__ == "__main__":
    main()
