"""What an analysis can be told: one list for the command line's flags and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.comparison.options import StrategyOptions, strategies_option
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import about

DEFAULT_STRATEGIES = "sequential,parallel,sink,selective,sink+selective"
DEFAULT_CHUNKS = (2, 4, 8, 16)
# Model arguments that say into how many chunks a context is cut.
_CUTS = ("chunks", "chunk_tokens", "max_chunks", "preset")


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """What to analyse, on what, and where to write. Fields are the flags of `lm-eval-ape analyze`."""

    COMMAND: ClassVar[str] = "analyze"

    strategies: tuple[str, ...] = strategies_option(DEFAULT_STRATEGIES)
    chunks: tuple[int, ...] | None = field(
        default=None,
        metadata=about(
            values.counts(1),
            "P: cut contexts into so many chunks, once for each number (default: "
            f"{','.join(map(str, DEFAULT_CHUNKS))}, or as model_args says)",
            "P,...",
        ),
    )
    probe_limit: int = field(
        default=32,
        metadata=about(values.count(1), "look at the attention of the first N documents of each task", "N"),
    )
    scores: bool = field(
        default=True, metadata=about(values.switch, "score every setting too, as `lm-eval-ape compare` does")
    )
    output_path: str | None = field(
        default=None, metadata=about(values.text, "folder for analysis.json, tables, figures and runs", "DIR")
    )
    resamples: int = field(default=1000, metadata=about(values.count(99), "bootstrap resamples", "N"))
    seed: int = field(default=1234, metadata=about(values.count(0), "seed of the bootstrap", "N"))

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse an analysis without model, tasks or folder, and options that exclude each other."""
        self.check_named("ape_longbench_2wikimqa_test")
        if self.output_path is None:
            raise ApeError("output_path must name a folder, so that nothing computed is lost: --output_path analysis.")
        if self.chunks is not None and len(set(self.chunks)) < len(self.chunks):
            raise ApeError(f"chunks must name each number once, but got {','.join(map(str, self.chunks))}.")
        if self.chunks is not None and (cut := next((name for name in _CUTS if name in self.model_args), None)):
            raise ApeError(f"model_args has {cut} and --chunks cuts contexts too; drop one.")
        if self.metric is not None and not self.scores:
            raise ApeError("metric says what is scored, but --no-scores scores nothing; drop one.")

    @property
    def counts(self) -> tuple[int | None, ...]:
        """Numbers of chunks to try; None for the cut that model_args says."""
        if self.chunks is not None:
            return self.chunks
        return (None,) if any(name in self.model_args for name in _CUTS) else DEFAULT_CHUNKS

    @property
    def comparison(self) -> ComparisonOptions:
        """The comparison that gives the scores, but for its strategies."""
        names = {option.name for option in fields(ComparisonOptions)} & {option.name for option in fields(self)}
        return ComparisonOptions(**{name: getattr(self, name) for name in names})
