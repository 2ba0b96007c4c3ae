"""Every attention kernel that serves here, against eager attention in float64: the worst error of each over many calls.

    python benchmarks/attention_kernels.py
    python benchmarks/attention_kernels.py --device cuda --keys 1 7 64 1000 8192 131072

Calls differ in precision, head dimension, heads to a key head, keys, queries and what these may see: all keys,
causally, by a mask, by a mask that leaves some rows without a key, and rows that read the same keys. The reference gets
the same numbers in float64. An error above a kernel's bound is named and ends the program with status 1.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from flags import parse, parser, positive
from timing import Table, finish
from torch import Tensor

from lm_eval_ape.attention.attend import attend
from lm_eval_ape.attention.kernels import BACKENDS, LADDER, Call
from lm_eval_ape.attention.merge import Attended

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Of outputs, whose numbers are about 1 at most, and of log-sum-exps, which are float32 in half precision.
BOUNDS = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (2e-5, 2e-5),
    torch.bfloat16: (0.03, 1e-3),
    torch.float16: (4e-3, 1e-3),
}
SIGHTS = ("all", "causal", "mask", "empty rows", "shared keys", "shared keys, mask")


class Case(NamedTuple):
    """A call.

    Attributes:
        dtype: Of queries, keys and values.
        width: Dimensions of a head.
        repeats: Query heads to a key head.
        keys: How many.
        queries: How many.
        sight: What queries see.
    """

    dtype: torch.dtype
    width: int
    repeats: int
    keys: int
    queries: int
    sight: str


def cases(args: Any) -> Iterator[Case]:
    """All calls; causal ones have as many queries as keys."""
    for name, width, repeats, keys, sight in product(
        args.dtypes, args.widths, args.repeats_of_heads, args.keys, SIGHTS
    ):
        causal = sight == "causal"
        if causal and keys > args.most_causal:
            continue
        for queries in [keys] if causal else args.queries:
            yield Case(DTYPES[name], width, repeats, keys, queries, sight)


def inputs(case: Case, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Queries, keys, values and the mask; one long key group, two short ones."""
    generator = torch.Generator().manual_seed(case.keys * 1000 + case.queries)
    groups, kv_heads = (1 if case.keys > 10000 else 2), 2
    rows = groups * (3 if "shared" in case.sight else 1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, case.width, generator=generator).to(device, case.dtype)

    query = draw(rows, kv_heads * case.repeats, case.queries)
    key, value = draw(groups, kv_heads, case.keys), draw(groups, kv_heads, case.keys)
    mask = None
    if case.sight in {"mask", "empty rows", "shared keys, mask"}:
        mask = torch.rand(rows, 1, case.queries, case.keys, generator=generator) < 0.7
        mask[..., 0] = True
        if case.sight == "empty rows":
            mask[:, :, ::2] = False
        mask = mask.to(device)
    return query, key, value, mask


def worst(got: Attended, expected: Attended) -> tuple[float, float]:
    """The largest errors of outputs and log-sum-exps; infinite where a row's emptiness or a number is wrong."""
    empty = expected.lse == -math.inf
    if not torch.equal(got.lse == -math.inf, empty) or not got.out.isfinite().all():
        return math.inf, math.inf
    out = (got.out.double() - expected.out).abs().max().item()
    lse = (got.lse.double() - expected.lse).masked_fill(empty, 0.0).abs().max().item()
    return (math.inf if math.isnan(out) else out), (math.inf if math.isnan(lse) else lse)


def main() -> int:
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--dtypes", choices=list(DTYPES), nargs="+", default=list(DTYPES), help="(default: all)")
    flags.add_argument("--keys", type=positive, nargs="+", default=[1, 7, 64, 1000], help="(default: %(default)s)")
    flags.add_argument("--queries", type=positive, nargs="+", default=[1, 17, 64], help="(default: %(default)s)")
    flags.add_argument("--widths", type=positive, nargs="+", default=[64, 96, 128, 256], help="dimensions of a head")
    flags.add_argument("--repeats_of_heads", type=positive, nargs="+", default=[1, 4], help="query heads to a key head")
    flags.add_argument("--most_causal", type=positive, default=8192, help="keys of causal calls at most")
    args = parse(flags)
    rungs = {rung.name: rung for rung in LADDER}
    found: dict[tuple[str, torch.dtype], list[tuple[float, float, Case]]] = {}
    refused: dict[str, set[str]] = {name: set() for name in BACKENDS}
    for case in cases(args):
        query, key, value, mask = inputs(case, args.device)
        options: dict[str, Any] = {"scaling": case.width**-0.5, "causal": case.sight == "causal", "mask": mask}
        expected = attend(query.double(), key.double(), value.double(), backend="eager", **options)
        for name in BACKENDS:
            if reason := rungs[name].refuses(Call(query, key, value, softcap=None, **options)):
                refused[name].add(reason)
                continue
            errors = worst(attend(query, key, value, backend=name, **options), expected)
            found.setdefault((name, case.dtype), []).append((*errors, case))
    table = Table(
        f"Attention kernels against float64, head dimensions {args.widths}, keys {args.keys}, {args.repeats_of_heads} "
        "query heads to a key head",
        ["kernel", "precision", "calls", "worst output", "worst log-sum-exp", "within"],
    )
    figures, beyond = [], []
    for (name, dtype), calls in found.items():
        out, lse = max(call[0] for call in calls), max(call[1] for call in calls)
        bounds = BOUNDS[dtype]
        beyond += [f"{name}, {case}" for *errors, case in calls if errors[0] > bounds[0] or errors[1] > bounds[1]]
        table.add(
            name, str(dtype).removeprefix("torch."), str(len(calls)), f"{out:.1e}", f"{lse:.1e}",
            f"{bounds[0]:g}, {bounds[1]:g}",
        )  # fmt: skip
        figures.append({"kernel": name, "dtype": str(dtype), "calls": len(calls), "out": out, "lse": lse})
    notes = [f"{name} served nothing: {'; '.join(sorted(refused[name]))}." for name in BACKENDS if not any(
        served == name for served, _ in found
    )]  # fmt: skip
    finish(args, [table], figures, notes)
    if beyond:
        print(f"{len(beyond)} calls lie beyond the bounds, the first of them:", *beyond[:10], sep="\n", file=sys.stderr)
    return bool(beyond)


if __name__ == "__main__":
    sys.exit(main())
