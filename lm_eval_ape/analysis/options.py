"""The options of an analysis: one list for the command line's flags and Python."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator
from typing_extensions import Self

from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.comparison.options import StrategyOptions, strategies_option
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import option

DEFAULT_STRATEGIES = "sequential,parallel,sink,selective,sink+selective"
DEFAULT_CHUNKS = (2, 4, 8, 16)
# Model arguments that say into how many chunks a context is cut.
_CUTS = ("chunks", "chunk_tokens", "max_chunks", "preset")


class Options(StrategyOptions):
    """Cases, tasks and output of an analysis. Fields are the flags of `lm-eval-ape analyze`."""

    COMMAND: ClassVar[str] = "analyze"

    strategies: values.Specs = strategies_option(DEFAULT_STRATEGIES)
    chunks: values.Counts | None = option(
        None,
        "P: cut contexts into so many chunks, once for each number (default: "
        f"{','.join(map(str, DEFAULT_CHUNKS))}, or as model_args says)",
        "P,...",
    )
    probe_limit: values.Count = option(32, "look at the attention of the first N documents of each task", "N")
    scores: values.Switch = option(True, "score every setting too, as `lm-eval-ape compare` does")
    output_path: values.Text | None = option(None, "folder for analysis.json, tables, figures and runs", "DIR")
    resamples: values.CountFrom99 = option(1000, "bootstrap resamples", "N")
    seed: values.CountFrom0 = option(1234, "seed of the bootstrap", "N")

    @model_validator(mode="after")
    def check(self) -> Self:
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
        return self

    @property
    def counts(self) -> tuple[int | None, ...]:
        """Numbers of chunks to try; None for the cut in `model_args`."""
        if self.chunks is not None:
            return self.chunks
        return (None,) if any(name in self.model_args for name in _CUTS) else DEFAULT_CHUNKS

    @property
    def comparison(self) -> ComparisonOptions:
        """The comparison that gives the scores, without its strategies."""
        names = ComparisonOptions.model_fields.keys() & type(self).model_fields.keys()
        return ComparisonOptions(**{name: getattr(self, name) for name in names})
