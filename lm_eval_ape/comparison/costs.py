"""A run's costs: seconds, tokens and memory, from the requests that `compare` measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from lm_eval_ape.artefacts.board import Costs, KeptTokens, Middle
from lm_eval_ape.artefacts.run_record import KeptChunks, Record


def costs(record: Record | None) -> Costs | None:
    """Summarise a record's requests.

    Args:
        record: What `run.json` says; None for a run that was not measured.

    Returns:
        `median` (unmoved by a first, slow call), `mean` and `max` of a request: of those that generate the
        `prefill_seconds`, `seconds` in all and `new_tokens`; of continuations and texts that are scored, their
        `scoring_seconds`; of both, `chunks` and `tokens`. Also `decode_tokens_per_second` (tokens after the first, by
        the seconds after it, of one process), `dropped_tokens` in all, the share of the chunks' tokens that was
        `recomputed`, `peak_memory_bytes`, and as `kv_cache` what the store of encoded chunks was asked for and had (see
        `kv_store.store.Counts`), None without a store.
    """
    if record is None:
        return None
    requests = record.requests
    generated = [r for r in requests if r.new_tokens is not None]
    new_tokens = [r.new_tokens for r in requests if r.new_tokens is not None]
    seconds = [r.seconds for r in generated if r.seconds is not None]
    prefill_seconds = [r.prefill_seconds for r in generated if r.prefill_seconds is not None]
    later = sum(count - 1 for count in new_tokens if count)
    decoding = sum(whole - prefill for whole, prefill in zip(seconds, prefill_seconds, strict=True))
    return Costs(
        requests=len(requests),
        prefill_seconds=_middle(prefill_seconds),
        seconds=_middle(seconds),
        scoring_seconds=_middle([r.seconds for r in requests if r.new_tokens is None and r.seconds]),
        decode_tokens_per_second=later / decoding if later > 0 and decoding > 0 else None,
        new_tokens=_middle(new_tokens),
        chunks=_middle([len(r.chunk_tokens) for r in requests]),
        tokens=_middle([r.tokens for r in requests]),
        dropped_tokens=sum(r.dropped_tokens for r in requests),
        recomputed=_middle(
            # Prompts that are read as one sequence have no chunks.
            [
                r.recomputed_tokens / sum(r.chunk_tokens)
                for r in requests
                if r.recomputed_tokens is not None and r.chunk_tokens
            ]
        ),
        peak_memory_bytes=record.peak_memory_bytes,
        peak_memory_of=record.peak_memory_of,
        kv_cache=_summed(record.kv_cache or []),
    )


def _summed(parts: Sequence[KeptChunks]) -> KeptTokens | None:
    """The counts of all processes' stores."""
    names = ("memory_hits", "disk_hits", "misses", "hit_tokens", "miss_tokens")
    return KeptTokens(**{name: sum(getattr(part, name) for part in parts) for name in names}) if parts else None


def _middle(values: Sequence[float]) -> Middle | None:
    return Middle(median=median(values), mean=fmean(values), max=max(values)) if values else None
