"""The cases of an analysis: every strategy with every number of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lm_eval_ape.analysis.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.specs import Spec, read_specs
from lm_eval_ape.settings.strategy import Settings


class Case(NamedTuple):
    """One strategy with one number of chunks.

    Attributes:
        spec: How it is scored.
        family: The strategy as it was asked for, without the number of chunks.
        chunks: P; 1 for the sequential model, None where another setting says it.
        probed: The settings under which attention is looked at: the spec's own, or, for the sequential model, one chunk
            at T=S=1, which is the same model with its context kept apart from its query.
    """

    spec: Spec
    family: str
    chunks: int | None
    probed: Settings


def cases(options: Options, strategies: Sequence[str]) -> list[Case]:
    """All cases, sequential ones once.

    Args:
        options: The model and the numbers of chunks.
        strategies: Specs as `compare` takes them.

    Raises:
        ApeError: A spec is unknown or impossible, or names a number of chunks itself.
    """
    asked: list[tuple[str, int | None]] = []
    for spec in strategies:
        if "chunks=" in spec.replace("max_chunks=", ""):
            raise ApeError(
                f"{spec}: --chunks says into how many chunks contexts are cut; leave it out of the strategy."
            )
        counts = (1,) if spec.partition("[")[0].strip() == "sequential" else options.counts
        asked += [(spec, count) for count in counts]
    labels = [_with_chunks(family, count) for family, count in asked]
    found = read_specs(labels, options.model_args)
    return [
        Case(spec, family, count, _probed(spec.settings)) for spec, (family, count) in zip(found, asked, strict=True)
    ]


def _with_chunks(spec: str, count: int | None) -> str:
    """A spec with a setting more; the sequential model has no chunks."""
    name = spec.partition("[")[0].partition("@")[0].strip()
    if count is None or name == "sequential":
        return spec
    if "[" in spec:
        return spec.replace("[", f"[chunks={count},", 1)
    return spec.replace(name, f"{name}[chunks={count}]", 1)


def _probed(settings: Settings) -> Settings:
    if settings.parallel:
        return settings
    return settings.with_(strategy="sink", chunks=1, chunk_tokens=None, max_chunks=None)
