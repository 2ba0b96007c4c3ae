"""The named strategies and the settings they stand for.

A strategy is a named set of defaults: to add one, add an entry to `STRATEGIES`. A setting that is given wins over
its strategy's default, so `strategy=sink,attn_temperature=0.9` is a sink with a temperature.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lm_eval_ape.chunking import CHUNKINGS
from lm_eval_ape.context_table import AUTO, ContextTable, read_fields, read_pattern, read_table
from lm_eval_ape.errors import ApeError
from lm_eval_ape.factors import Factors
from lm_eval_ape.kernels import BACKENDS
from lm_eval_ape.merge import SCALE_MODES
from lm_eval_ape.option_values import LEAST_TEMPERATURE, is_number
from lm_eval_ape.positions import POSITIONS
from lm_eval_ape.retrieval import RETRIEVERS
from lm_eval_ape.selection import SELECT_OVER, Selection

NO_CONTEXT = ("error", "sequential")
PASSES = ("parallel", "sequential")


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
        max_chunks: Most chunks; more are joined with their neighbours, or dropped by a `retriever`. None for no limit.
        chunks: Number of chunks of about equal lengths, P; in place of `chunk_tokens` and `max_chunks`.
        retriever: What chooses `max_chunks` chunks to be read, the others being dropped: `none` or `bm25`.
        preset: Name in `PRESETS`, which fills other settings.
        separator: Text between pieces for `chunking=separator`; it stays with the piece before it.
        prefix: Text to put before a context that no text stands before.
        positions: `shared`, `stretched` or `serial` (see `positions`).
        top_chunks: How many chunks a query token reads, the best by their attention; None for all (see `selection`).
        select_over: Over what a chunk's score is taken: `none`, `T`, `HT` or `LHT`.
        reselect: Whether every generated token chooses its chunks anew; otherwise the query's pass decides for all.
        keys_from: Which pass gives the context's keys: `parallel`, or `sequential` for an oracle.
        values_from: Which pass gives its values, likewise.
        context_field: Field of the task's document whose text, or list of texts, is the context; `a|b` tries two, and
            `auto` asks the tables, then the document's `context`, then its longest field (see `contexts`).
        context_pattern: Regular expression whose group `context` is the context, in place of a field; empty for none.
        context_table: YAML file that says for tasks where their contexts stand (see `context_table`); empty for none.
        no_context: What to do with a prompt without a context: `error` or `sequential`.
        attn_backend: `auto` or one rung of the attention ladder.
        table: What `context_table` holds; no argument of its own.
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
    chunks: int | None = None
    retriever: str = "none"
    preset: str = "none"
    separator: str = "\n\n"
    prefix: str = ""
    positions: str = "shared"
    top_chunks: int | None = None
    select_over: str = "HT"
    reselect: bool = True
    keys_from: str = "parallel"
    values_from: str = "parallel"
    context_field: str = AUTO
    context_pattern: str = ""
    context_table: str = ""
    no_context: str = "error"
    attn_backend: str = "auto"
    table: ContextTable | None = None
    factors: Factors | None = None

    @property
    def record(self) -> dict[str, Any]:
        """All settings as JSON types; a digest stands for a table of contexts, and for the factors."""
        record = {name: getattr(self, name) for name in SETTINGS}
        if self.table is not None:
            record["context_table_sha256"] = self.table.digest
        return record if self.factors is None else {**record, "factors_sha256": self.factors.digest}

    @property
    def parallel(self) -> bool:
        """Whether the context is cut into chunks at all."""
        return self.strategy != "sequential"

    @property
    def one_sequence(self) -> bool:
        """Whether the model's window must hold the whole prompt at once."""
        return not self.parallel or "sequential" in (self.keys_from, self.values_from) or self.positions == "serial"

    @property
    def selection(self) -> Selection | None:
        """How a query chooses among the chunks; None if it reads all of them."""
        return None if self.top_chunks is None else Selection(self.top_chunks, self.select_over, self.reselect)

    @property
    def retrieves(self) -> bool:
        """Whether some chunks are chosen and the others dropped, under every strategy alike."""
        return self.retriever != "none"


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
    # Each query reads the two chunks that its attention likes best (Zhang et al., 2024), alone or with sinks.
    "selective": {"shared_prefix": False, "top_chunks": 2},
    "sink+selective": {"top_chunks": 2},
    # An oracle (Zhang et al., 2024): keys of the sequential pass, so that the values alone are parallel encoding's.
    "value_only": {"shared_prefix": False, "keys_from": "sequential"},
}

# Named ways of cutting and retrieving; a preset wins over its strategy's defaults, a given setting over both.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    # "C200x20" and "C4000x20" of APE (Yang et al., ICLR 2025): the 20 best chunks of 200 or 4000; here tokens and BM25.
    "C200x20": {"chunk_tokens": 200, "max_chunks": 20, "retriever": "bm25"},
    "C4000x20": {"chunk_tokens": 4000, "max_chunks": 20, "retriever": "bm25"},
}

_CHOICES = {
    "strategy": tuple(STRATEGIES),
    "retriever": RETRIEVERS,
    "preset": tuple(PRESETS),
    "scale_mode": SCALE_MODES,
    "chunking": CHUNKINGS,
    "positions": POSITIONS,
    "select_over": SELECT_OVER,
    "keys_from": PASSES,
    "values_from": PASSES,
    "no_context": NO_CONTEXT,
    "attn_backend": ("auto", *BACKENDS),
}
_POSITIVE = ("attn_temperature", "attn_scale")
_COUNTS = ("chunk_tokens", "max_chunks", "chunks", "top_chunks")
_TEXTS = ("separator", "prefix", "context_field", "context_table")
SETTINGS = tuple(field.name for field in fields(Settings) if field.name not in ("table", "factors"))


def resolve(given: Mapping[str, Any]) -> Settings:
    """Fill the defaults of a strategy and a preset around the settings given, and check each.

    Args:
        given: Names of `Settings` fields with values as the harness parses them.

    Raises:
        ApeError: A value is of the wrong kind or out of range, has no meaning for the strategy, or contradicts another.
    """
    name = given.get("strategy", DEFAULT_STRATEGY)
    _choose("strategy", name)
    checked = {key: _check(key, value) for key, value in given.items()}
    settings = Settings(**{**STRATEGIES[name], **PRESETS[checked.get("preset", "none")], **checked})
    _check_division(settings)
    if settings.chunking == "tokens" and settings.chunk_tokens is None and settings.chunks is None:
        settings = replace(settings, chunk_tokens=DEFAULT_CHUNK_TOKENS)
    if settings.chunking == "separator" and not settings.separator:
        raise ApeError("chunking=separator needs a separator, but got an empty one; for example separator=\\n\\n.")
    _check_context(settings, given)
    if settings.context_table:
        settings = replace(settings, table=read_table(settings.context_table))
    if settings.select_over == "none" and not settings.reselect:
        raise ApeError(
            "reselect=False keeps the chunks that the query's tokens choose together, but with select_over=none each "
            "token chooses for itself; use select_over=HT, LHT or T, or leave reselect=True."
        )
    if name == "sequential":
        idle = [key for key in _POSITIVE if getattr(settings, key) != 1.0]
        if idle:
            raise ApeError(
                f"strategy=sequential reads the whole prompt with ordinary attention, so {idle[0]}="
                f"{getattr(settings, idle[0])} would change nothing; drop it or use strategy=ape."
            )
    return settings


def _check_division(settings: Settings) -> None:
    """Refuse settings that say in two ways, or not at all, how many chunks there are."""
    if settings.chunks is not None:
        for other in ("chunk_tokens", "max_chunks"):
            if (value := getattr(settings, other)) is not None:
                source = f" (of preset={settings.preset})" if PRESETS[settings.preset].get(other) == value else ""
                raise ApeError(
                    f"chunks={settings.chunks} cuts the context into that many chunks, and {other}={value}{source} "
                    "also says how it is cut; drop one of the two."
                )
    if settings.retrieves and settings.max_chunks is None:
        raise ApeError(
            f"retriever={settings.retriever} keeps the max_chunks best chunks, but max_chunks is not given; for "
            "example max_chunks=20, with chunk_tokens=200 for their length."
        )


def _check_context(settings: Settings, given: Mapping[str, Any]) -> None:
    """Refuse settings that say in two ways, or not at all, where the context is."""
    if settings.context_pattern and settings.context_field != AUTO:
        raise ApeError(
            f"context_pattern and context_field={settings.context_field} both say where the context is; drop one."
        )
    if "context_field" in given and not read_fields(settings.context_field):
        raise ApeError(f"context_field must name a field, or be {AUTO}, but got {settings.context_field!r}.")


def _check(key: str, value: Any) -> Any:
    if key in ("retriever", "preset") and value is None:
        # The harness reads `none` on a command line as None.
        value = "none"
    if key in _CHOICES:
        return _choose(key, value)
    if key in _POSITIVE:
        if not is_number(value) or value <= 0:
            raise ApeError(f"{key} must be a positive number, but got {value!r:.60}.")
        if key == "attn_temperature" and value < LEAST_TEMPERATURE:
            raise ApeError(f"{key} must be at least {LEAST_TEMPERATURE:g}, but got {value!r:.60}.")
        return float(value)
    if key in _COUNTS:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ApeError(f"{key} must be a whole number of at least 1 or None, but got {value!r}.")
        return value
    if key == "context_pattern":
        # Not as other texts: \\n in an expression means a line break already.
        return read_pattern(key, value).pattern if value else ""
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
