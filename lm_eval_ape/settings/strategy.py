"""The named strategies and the settings they stand for.

A strategy is a named set of defaults: to add one, add an entry to `STRATEGIES`. A setting that is given wins over
its strategy's default, so `strategy=sink,attn_temperature=0.9` is a sink with a temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    model_validator,
)
from typing_extensions import Self

from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.attention.kernels import BACKENDS
from lm_eval_ape.attention.merge import ScaleMode
from lm_eval_ape.attention.selection import Selection, SelectOver
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.choices import Chunking, NoContext, Pass, Positions, Retriever, Selector
from lm_eval_ape.settings.context_table import AUTO, ContextTable, read_fields, read_pattern, read_table
from lm_eval_ape.settings.layers import ALL_LAYERS, read_layers
from lm_eval_ape.settings.option_values import LEAST_TEMPERATURE, read_by
from lm_eval_ape.settings.validation import Must, validated

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
    # Some tokens recomputed with everything before them in view: those that the query attends to,
    "recompute": {"positions": "serial", "recompute": 0.05},
    # those whose values change most in the first layers (CacheBlend, Yao et al., 2024),
    "cacheblend": {"positions": "serial", "recompute": 0.15, "recompute_by": "deviation"},
    # the first ones of each chunk (EPIC, Hu et al., ICML 2025: LegoLink-16 of 512 tokens),
    "epic": {"positions": "serial", "recompute": 0.03, "recompute_by": "first"},
    # and those that the query attends to in the last two layers (InfoFlow KV, Teng et al., 2026).
    "infoflow": {"positions": "serial", "recompute": 0.15, "recompute_layers": "last:2"},
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

_BACKENDS = ("auto", *BACKENDS)

if TYPE_CHECKING:
    StrategyName: TypeAlias = str
    PresetName: TypeAlias = str
    Backend: TypeAlias = str
else:
    StrategyName = Literal[tuple(STRATEGIES)]
    PresetName = Literal[tuple(PRESETS)]
    Backend = Literal[_BACKENDS]


def _none_named(value: Any) -> Any:
    """The harness reads `none` on a command line as None."""
    return "none" if value is None else value


def _line_breaks(value: str) -> str:
    r"""A command line cannot easily hold a line break: \n and \t stand for one."""
    return value.replace("\\n", "\n").replace("\\t", "\t")


def _pattern(name: str, value: Any) -> str:
    r"""Not as other texts: \n in an expression means a line break already."""
    return read_pattern(name, value).pattern if value else ""


def _layers(value: str) -> str:
    read_layers(value)
    return value


def _not_tiny(value: float) -> float:
    if value < LEAST_TEMPERATURE:
        raise ApeError(f"attn_temperature must be at least {LEAST_TEMPERATURE:g}, but got {value!r}.")
    return value


def _whole_above_1(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ApeError(
            "recompute must be a share of the context's tokens, 0 to 1, or a whole number of tokens, but got "
            f"{value!r}."
        )
    return value


Positive = Annotated[float, Field(gt=0), AllowInfNan(False), Must("a positive number")]
Share = Annotated[
    float,
    Field(ge=0),
    AllowInfNan(False),
    AfterValidator(_whole_above_1),
    Must("a share of the context's tokens, 0 to 1, or a whole number of tokens"),
]
Count = Annotated[int, Field(ge=1), Must("a whole number of at least 1 or None")]
Switch = Annotated[bool, Must("True or False")]
Words = Annotated[str, AfterValidator(_line_breaks), Must("text")]


def setting(default: Any, about: str = "", shown: str = "") -> Any:
    """A setting's field.

    Args:
        default: What it is if nothing says otherwise.
        about: Its values, in Markdown, for the README's table of model arguments, where `{choices}` stands for those of
            its type; empty for a setting that shares the row of the one before it.
        shown: The default in that table, where it is not this one.
    """
    return Field(default, description=about, json_schema_extra={"shown": shown})


class Settings(BaseModel):
    """How a prompt's context is found, cut into chunks, encoded and read. Fields are the model's arguments.

    Attributes:
        table: What `context_table` holds; no argument of its own.
        factors: T and S of each layer and head in place of the two numbers (which are then their geometric means); no
            argument of its own, but what `calibration=PATH` may hold.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    strategy: StrategyName = setting("ape", "{choices}")
    attn_temperature: Annotated[Positive, AfterValidator(_not_tiny)] = setting(
        1.0, "T and S, positive numbers (T at least 1e-6)", "the strategy's"
    )
    attn_scale: Positive = setting(1.0)
    scale_mode: ScaleMode = setting("lse", "`lse` (above), `value` (S multiplies O_ctx), `additive` (T L_ctx + ln S)")
    shared_prefix: Switch = setting(True, "whether every chunk sees the prefix", "the strategy's")
    chunking: Chunking = setting("tokens", "`tokens`; `passages`, at headings like `Passage 3:`; `separator`")
    chunk_tokens: Count | None = setting(None, "longest chunk, tokens", "4000 for `tokens`, else none")
    max_chunks: Count | None = setting(
        None, "most chunks; more are joined with their neighbours, nothing is dropped unless a `retriever` chooses"
    )
    chunks: Count | None = setting(
        None, "P, number of chunks of about equal lengths, of tokens or of whole pieces; in place of the two above"
    )
    retriever: Annotated[Retriever, BeforeValidator(_none_named)] = setting(
        "none", "`bm25`: the `max_chunks` chunks that match the query best are read, the others dropped; `none`"
    )
    preset: Annotated[PresetName, BeforeValidator(_none_named)] = setting(
        "none", "`C200x20`, `C4000x20`: chunks of 200 or 4000 tokens, the 20 best by BM25; fills what is not given"
    )
    separator: Words = setting("\n\n", r"text between pieces; `\n` and `\t` may be written so")
    prefix: Words = setting("", "text to put before a context that no text stands before")
    positions: Positions = setting(
        "shared",
        "`shared`, every chunk starts after the prefix; `stretched` to the longest chunk; `serial`, moved to where it "
        "stands in the text",
        "the strategy's",
    )
    top_chunks: Count | None = setting(
        None, "how many chunks a query reads, the best by its attention; none for all", "the strategy's"
    )
    select_over: SelectOver = setting("HT", "{choices}: what chooses chunks together")
    reselect: Switch = setting(True, "whether every generated token chooses anew")
    recompute: Share = setting(
        0.0,
        "share of the context's tokens that are [recomputed](../concepts/recomputation.md) with everything before "
        "them in view, 0 to 1, or a number of tokens; goes with `positions=serial`",
        "the strategy's",
    )
    recompute_by: Selector = setting(
        "query", "{choices}: what chooses them, the query's attention, CacheBlend's rule, each chunk's start, or chance"
    )
    recompute_layers: Annotated[Words, AfterValidator(_layers)] = setting(
        "all", "layers whose attention `query` reads: `all`, `last:2`, or numbers from 0 like `3+8-11`"
    )
    recompute_seed: Annotated[int, Field(ge=0), Must("a whole number of at least 0")] = setting(0, "seed of `random`")
    keys_from: Pass = setting("parallel", "`parallel`, or `sequential` for an oracle that reads the ordinary model's")
    values_from: Pass = setting("parallel")
    context_field: Words = setting(
        AUTO,
        "field of the task's document that holds the context, as text or as a list of texts; several to try: "
        "<code>article&#124;story</code>",
        "`auto`: [found](contexts.md) by the task's name, else `context`, else the longest field",
    )
    context_pattern: Annotated[str, read_by(_pattern)] = setting(
        "", "regular expression whose group `(?P<context>...)` is the context, where one field holds everything"
    )
    context_table: Words = setting("", "YAML file that says for your tasks where their contexts are")
    no_context: NoContext = setting("error", "a prompt without a context is an `error`, or read as `sequential`")
    attn_backend: Backend = setting("auto", "{choices}: the attention kernel; `auto` is the best that serves")
    table: InstanceOf[ContextTable] | None = None
    factors: InstanceOf[Factors] | None = None

    @model_validator(mode="after")
    def _check_division(self) -> Self:
        """Refuse settings that say in two ways, or not at all, how many chunks there are."""
        if self.chunks is not None:
            for other in ("chunk_tokens", "max_chunks"):
                if (value := getattr(self, other)) is not None:
                    source = f" (of preset={self.preset})" if PRESETS[self.preset].get(other) == value else ""
                    raise ApeError(
                        f"chunks={self.chunks} cuts the context into that many chunks, and {other}={value}{source} "
                        "also says how it is cut; drop one of the two."
                    )
        if self.retrieves and self.max_chunks is None:
            raise ApeError(
                f"retriever={self.retriever} keeps the max_chunks best chunks, but max_chunks is not given; for "
                "example max_chunks=20, with chunk_tokens=200 for their length."
            )
        return self

    @model_validator(mode="after")
    def _check_context(self) -> Self:
        """Refuse settings that say in two ways, or not at all, where the context is and where its pieces end."""
        if self.chunking == "separator" and not self.separator:
            raise ApeError("chunking=separator needs a separator, but got an empty one; for example separator=\\n\\n.")
        if self.context_pattern and self.context_field != AUTO:
            raise ApeError(
                f"context_pattern and context_field={self.context_field} both say where the context is; drop one."
            )
        if not read_fields(self.context_field):
            raise ApeError(f"context_field must name a field, or be {AUTO}, but got {self.context_field!r}.")
        return self

    @model_validator(mode="after")
    def _check_meaning(self) -> Self:
        """Refuse settings that would change nothing."""
        if self.select_over == "none" and not self.reselect:
            raise ApeError(
                "reselect=False keeps the chunks that the query's tokens choose together, but with select_over=none "
                "each token chooses for itself; use select_over=HT, LHT or T, or leave reselect=True."
            )
        idle = [name for name in ("attn_temperature", "attn_scale") if getattr(self, name) != 1.0]
        if self.strategy == "sequential" and idle:
            raise ApeError(
                f"strategy=sequential reads the whole prompt with ordinary attention, so {idle[0]}="
                f"{getattr(self, idle[0])} would change nothing; drop it or use strategy=ape."
            )
        return self

    @model_validator(mode="after")
    def _check_recomputation(self) -> Self:
        """Refuse recomputation together with what it has no meaning for, or would change nothing of."""
        if self.recompute_layers != ALL_LAYERS and self.recompute_by != "query":
            raise ApeError(
                f"recompute_layers={self.recompute_layers} says whose attention recompute_by=query reads, but "
                f"recompute_by={self.recompute_by} reads none; drop one of the two."
            )
        if self.recompute_seed and self.recompute_by != "random":
            raise ApeError(
                f"recompute_seed={self.recompute_seed} would change nothing with recompute_by={self.recompute_by}; "
                "drop it or use recompute_by=random."
            )
        if not self.recompute:
            return self
        asked = f"recompute={self.recompute:g}"
        if not self.parallel:
            raise ApeError(
                f"strategy=sequential reads the whole prompt at once: {asked} would change nothing; drop it."
            )
        if self.positions != "serial":
            raise ApeError(
                f"{asked} does not go with positions={self.positions}: several tokens stand at one position there, "
                "where a recomputed token would see two tokens at once; add positions=serial."
            )
        if self.top_chunks is not None:
            raise ApeError(
                f"{asked} does not go with top_chunks={self.top_chunks}: a query may read a recomputed token only with "
                "the chunks that the token has seen; drop one of the two."
            )
        if "sequential" in (self.keys_from, self.values_from):
            raise ApeError(f"{asked} does not go with keys_from or values_from=sequential, which are whole already.")
        return self

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
    def asks_to_recompute(self) -> bool:
        """Whether it is the query that says which tokens are recomputed, so that each question has others."""
        return self.recompute > 0 and self.recompute_by == "query"

    @property
    def retrieves(self) -> bool:
        """Whether some chunks are chosen and the others dropped, under every strategy alike."""
        return self.retriever != "none"

    def with_(self, **changes: Any) -> Self:
        """These settings with others in place of some, which nobody checks again."""
        return self.model_copy(update=changes)


DEFAULTS: Mapping[str, Any] = {
    name: field.default for name, field in Settings.model_fields.items() if name not in ("table", "factors")
}
SETTINGS = tuple(DEFAULTS)


def resolve(given: Mapping[str, Any]) -> Settings:
    """Fill the defaults of a strategy and a preset around the settings given, and check each.

    Args:
        given: Names of `Settings` fields with values as the harness parses them.

    Raises:
        ApeError: A value is of the wrong kind or out of range, has no meaning for the strategy, or contradicts another.
    """
    strategy, preset = (str(given.get(name, DEFAULTS[name])) for name in ("strategy", "preset"))
    settings = validated(Settings, {**STRATEGIES.get(strategy, {}), **PRESETS.get(preset, {}), **given}, "ape-hf")
    found: dict[str, Any] = {}
    if settings.chunking == "tokens" and settings.chunk_tokens is None and settings.chunks is None:
        found["chunk_tokens"] = DEFAULT_CHUNK_TOKENS
    if settings.context_table:
        found["table"] = read_table(settings.context_table)
    return settings.with_(**found)
