"""What is read of the harness's own files; it writes much more, and NaN where a score is none."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lm_eval_ape.artefacts.document import Count, Number, Part, PartError, check_known
from lm_eval_ape.artefacts.run_record import Settings


def _pairs_or_text(value: Any) -> Any:
    if not isinstance(value, (dict, str, type(None))):
        raise PartError(f"must be object, string or null, but is {value!r:.60}.")
    return value


class _KnownConfig(Part):
    model: str | None = None
    model_args: Annotated[Any, AfterValidator(_pairs_or_text)] = None
    lm_eval_ape: Settings | None = None


class SampleCount(Part):
    """How many documents of a task were evaluated."""

    effective: Count | None = None


class Results(Part):
    """What `results_*.json` says of a run."""

    config: Annotated[dict[str, Any], AfterValidator(check_known(_KnownConfig))]
    results: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - pydantic copies it
    sample_counts: Annotated[dict[str, SampleCount], Field(alias="n-samples")] = {}  # noqa: RUF012
    shots: Annotated[dict[str, Any], Field(alias="n-shot")] = {}  # noqa: RUF012
    versions: dict[str, Any] = {}  # noqa: RUF012
    task_hashes: dict[str, str | None] = {}  # noqa: RUF012
    higher_is_better: dict[str, dict[str, bool | None] | None] = {}  # noqa: RUF012
    date: Number | None = None
    model_name: str | None = None
    chat_template_sha: Any = None

    @property
    def settings(self) -> dict[str, Any] | None:
        """How ape-hf encoded prompts; None for other models."""
        found: dict[str, Any] | None = self.config.get("lm_eval_ape")
        return found or None


def _has_prompt(arguments: dict[str, Any]) -> dict[str, Any]:
    if "arg_0" not in arguments:
        raise PartError("has no 'arg_0'.")
    return arguments


class SampleLine(Part):
    """A line of `samples_*.jsonl`: a document's outcome under one filter, each metric under its own name."""

    doc_id: Count
    doc_hash: str
    prompt_hash: str
    target_hash: str
    filter: str = "none"
    metrics: list[str]
    arguments: Annotated[dict[str, Annotated[dict[str, Any], AfterValidator(_has_prompt)]], Field(min_length=1)]
    filtered_resps: list[Any]
    target: Any

    @property
    def values(self) -> dict[str, Any]:
        """Each metric's value, of those that are there."""
        found = self.model_extra or {}
        return {name: found[name] for name in self.metrics if name in found}
