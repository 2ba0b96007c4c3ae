"""The named strategies and the settings they stand for.

A strategy is a named set of defaults: to add one, add an entry to `STRATEGIES`. A setting that is given wins over
its strategy's default, so `strategy=sink,attn_temperature=0.9` is a sink with a temperature.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lm_eval_ape.chunking import CHUNKINGS
from lm_eval_ape.errors import ApeError
from lm_eval_ape.factors import Factors
from lm_eval_ape.kernels import BACKENDS
from lm_eval_ape.merge import SCALE_MODES
from lm_eval_ape.positions import POSITIONS

NO_CONTEXT = ("error", "sequential")


@dataclass(frozen=True)
class Settings:
    """How a prompt's context is found, cut into chunks, encoded and read. Fields are the model's arguments.

    Attributes:
        strategy: Name in `STRATEGIES`.
        attn_temperature: T, which divides the logits of context keys; positive.
        attn_scale: S, which weighs the context in the merge; positive.
        scale_mode: What S multiplies: `lse`, `value` or `additive` (see `merge.scale_context`).
        shared_prefix: Whether every chunk sees the prefix; otherwise the first chunk alone does.
        chunking: `tokens`, `passages` or `separator` (see `chunking`).
        chunk_tokens: Longest chunk in tokens; with `passages` and `separator`, None leaves pieces whole.
        max_chunks: Most chunks; more are joined with their neighbours. None for no limit.
        separator: Text between pieces for `chunking=separator`; it stays with the piece before it.
        prefix: Text to put before a context that no text stands before.
        positions: `shared`, `stretched` or `serial` (see `positions`).
        context_field: Field of the task's document whose text is the context.
        no_context: What to do with a prompt without a context: `error` or `sequential`.
        attn_backend: `auto` or one rung of the attention ladder.
        factors: T and S of each layer and head in place of the two numbers (which are then their geometric means); no
            argument of its own, but what `calibration=PATH` may hold.
    """

    strategy: str = "ape"
    attn_temperature: float = 1.0
    attn_scale: float = 1.0
    scale_mode: str = "lse"
    shared_prefix: bool = True
    chunking: str = "tokens"
    chunk_tokens: int | None = None
    max_chunks: int | None = None
    separator: str = "\n\n"
    prefix: str = ""
    positions: str = "shared"
    context_field: str = "context"
    no_context: str = "error"
    attn_backend: str = "auto"
    factors: Factors | None = None

    @property
    def record(self) -> dict[str, Any]:
        """All settings as JSON types; a digest stands for the factors."""
        record = {name: getattr(self, name) for name in SETTINGS}
        return record if self.factors is None else {**record, "factors_sha256": self.factors.digest}

    @property
    def parallel(self) -> bool:
        """Whether the context is cut into chunks at all."""
        return self.strategy != "sequential"


DEFAULT_STRATEGY = "ape"
DEFAULT_CHUNK_TOKENS = 4000

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    # The ordinary prompt, one sequence.
    "sequential": {},
    # Parallel Context Windows (Ratner et al., ACL 2023): chunks encoded alone.
    "parallel": {"shared_prefix": False},
    # Parallel encoding with the prefix as every chunk's attention sink (Zhang et al., 2024).
    "sink": {},
    # Adaptive Parallel Encoding (Yang et al., ICLR 2025) with its default T and S.
    "ape": {"attn_temperature": 0.9, "attn_scale": 0.9},
}

_CHOICES = {
    "strategy": tuple(STRATEGIES),
    "scale_mode": SCALE_MODES,
    "chunking": CHUNKINGS,
    "positions": POSITIONS,
    "no_context": NO_CONTEXT,
    "attn_backend": ("auto", *BACKENDS),
}
_POSITIVE = ("attn_temperature", "attn_scale")
_COUNTS = ("chunk_tokens", "max_chunks")
_TEXTS = ("separator", "prefix", "context_field")
SETTINGS = tuple(field.name for field in fields(Settings) if field.name != "factors")


def resolve(given: Mapping[str, Any]) -> Settings:
    """Fill a strategy's defaults around the settings given, and check each.

    Args:
        given: Names of `Settings` fields with values as the harness parses them.

    Raises:
        ApeError: A value is of the wrong kind or out of range, or has no meaning for the strategy.
    """
    name = given.get("strategy", DEFAULT_STRATEGY)
    _choose("strategy", name)
    checked = {key: _check(key, value) for key, value in given.items()}
    settings = Settings(**{**STRATEGIES[name], **checked})
    if settings.chunking == "tokens" and settings.chunk_tokens is None:
        settings = Settings(**{**asdict(settings), "chunk_tokens": DEFAULT_CHUNK_TOKENS})
    if settings.chunking == "separator" and not settings.separator:
        raise ApeError("chunking=separator needs a separator, but got an empty one; for example separator=\\n\\n.")
    if name == "sequential":
        idle = [key for key in _POSITIVE if getattr(settings, key) != 1.0]
        if idle:
            raise ApeError(
                f"strategy=sequential reads the whole prompt with ordinary attention, so {idle[0]}="
                f"{getattr(settings, idle[0])} would change nothing; drop it or use strategy=ape."
            )
    return settings


def _check(key: str, value: Any) -> Any:
    if key in _CHOICES:
        return _choose(key, value)
    if key in _POSITIVE:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ApeError(f"{key} must be a positive number, but got {value!r}.")
        return float(value)
    if key in _COUNTS:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ApeError(f"{key} must be a whole number of at least 1 or None, but got {value!r}.")
        return value
    if key in _TEXTS:
        if not isinstance(value, str):
            raise ApeError(f"{key} must be text, but got {value!r}.")
        # A command line cannot easily hold a line break: \n and \t stand for one.
        return value.replace("\\n", "\n").replace("\\t", "\t")
    if not isinstance(value, bool):
        raise ApeError(f"{key} must be True or False, but got {value!r}.")
    return value


def _choose(key: str, value: Any) -> str:
    choices = _CHOICES[key]
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ApeError(f"{key} must be one of {', '.join(choices)}, but got {value!r}.{hint}")
    return str(value)
