"""What `compare` keeps beside a run, `run.json`, `kl.json` and `answer_nats.json`, in the order of writing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from lm_eval_ape.artefacts.document import (
    Count,
    Factor,
    LeftOut,
    Name,
    Number,
    Part,
    PartError,
    Positive,
    Scalar,
    check_known,
    checking,
    scalar,
)
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import SETTINGS
from lm_eval_ape.storage.files import read_json, write_text

RECORD_NAME = "run.json"
KL_NAME = "kl.json"
ANSWERS_NAME = "answer_nats.json"

# A sum of log-probabilities: rounding may leave it above 0, and beyond some size it is none that can be averaged.
_LEAST_NATS, _MOST_NATS = -1e12, 1.0

_MEND = "Run lm-eval-ape compare again with the same --output_path; what is whole is not run again."


class _KnownIdentity(Part):
    """What is read of all that a run depends on; more is compared as it is."""

    model: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    versions: dict[str, Any] = {}  # noqa: RUF012
    device: str | None = None


Identity = Annotated[dict[str, Any], AfterValidator(check_known(_KnownIdentity))]
"""All that a run depends on (see `comparison.identity`), compared as it is."""


class _KnownSettings(Part):
    """Settings that every run of ours has, and those of later versions that are reckoned with."""

    strategy: str
    attn_temperature: Factor
    attn_scale: Factor
    factors_sha256: str = ""
    recompute: Positive = 0.0
    recompute_by: str = ""
    recompute_layers: str = ""
    recompute_seed: Count = 0


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that this version knows are plain values; further ones are of later versions."""
    for name in SETTINGS:
        try:
            scalar(settings.get(name))
        except PartError as error:
            raise PartError(str(error), name) from error
    return settings


Settings = Annotated[dict[str, Any], AfterValidator(_plain), AfterValidator(check_known(_KnownSettings))]
"""How a run's prompts were encoded: what `harness.specs.describe` reads."""


class Measured(Part):
    """What was measured of a request: see `comparison.measured.Request`."""

    idx: Count | None = None
    chunk_tokens: list[Count]
    tokens: Count
    dropped_tokens: Count
    prefill_seconds: Positive | None
    seconds: Positive | None
    new_tokens: Count | None
    recomputed_tokens: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> Measured:
        if self.new_tokens is not None and None in (self.seconds, self.prefill_seconds):
            raise PartError("has no seconds, but generated tokens.")
        return self


class OfDocument(Part):
    """A part of a document of a task."""

    task: Name
    doc_id: Count


# The fields of the last base come first.
class Request(Measured, OfDocument):
    """A request of a document, measured."""


class KeptChunks(Part):
    """What a process asked the store of encoded chunks for, and what it had: see `encoding.kv_store.store.Counts`."""

    memory_limit_bytes: Count | None = None
    memory_bytes: Count | None = None
    dir: str | None = None
    dir_limit_bytes: Count | None = None
    dir_bytes: Count | None = None
    damaged_or_unwritten: Scalar = None
    memory_hits: Count
    disk_hits: Count
    misses: Count
    hit_tokens: Count
    miss_tokens: Count


class Record(Part):
    """What `run.json` says of a finished run."""

    label: Name
    results_file: Name
    identity: Identity
    command: str | None = None
    processes: Count | None = None
    created: str = ""
    peak_memory_bytes: Count
    peak_memory_of: str
    kv_cache: list[KeptChunks] | None = None
    requests: list[Request]


class KLIdentity(Part):
    """What divergences depend on: the run, and what was measured."""

    run: dict[str, Any]
    num_tokens: Annotated[int, Field(ge=1)]
    history: Name
    after_eos: Name
    limit: Annotated[Number, Field(gt=0)] | None = None


class PromptKL(OfDocument):
    """A prompt's divergences in nats, with the teacher's tokens that they belong to."""

    prompt_sha256: Name
    tokens: list[str]
    nats: Annotated[list[float], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> PromptKL:
        if len(self.tokens) != len(self.nats):
            raise PartError("has not one divergence for each token.")
        return self


class KLRecord(Part):
    """What `kl.json` says of a run: how far it is from the sequential model."""

    identity: KLIdentity
    left_out: LeftOut
    whole_texts: list[Name]
    samples: list[PromptKL]


class AnswerNats(Part):
    """How likely a reference answer is: see `harness.reference_answers.ScoredAnswer`."""

    answer: Name
    tokens: Annotated[int, Field(ge=1)]
    nats: Annotated[float, Field(ge=_LEAST_NATS, le=_MOST_NATS)]


class DocumentAnswer(AnswerNats, OfDocument):
    """How likely the reference answer of a document is."""

    prompt_sha256: Name


class AnswersRecord(Part):
    """What `answer_nats.json` says of a run: how likely the reference answers are, and where there are none.

    Attributes:
        identity: The run's.
        without: How many documents of a task have no reference answer, where some have one.
        passed_over: Tasks of which no document has one.
        samples: Those that have one.
    """

    identity: dict[str, Any]
    without: dict[str, Count]
    passed_over: list[Name]
    samples: list[DocumentAnswer]


def read_record(path: Path) -> Record:
    """Read what `write_record` wrote.

    Raises:
        ApeError: It cannot be read, is no such record, or names a results file outside its own folder.
    """
    with _reading(path, "record") as content:
        record = Record.model_validate(content)
    named = path.parent / record.results_file
    if not named.resolve().is_relative_to(path.parent.resolve()):
        raise ApeError(f"The record {path} names the results file {record.results_file!r} outside its folder. {_MEND}")
    return record


def read_divergences(path: Path) -> KLRecord:
    """Read what `write_divergences` wrote.

    Raises:
        ApeError: It cannot be read, or holds something else.
    """
    with _reading(path, "file") as content:
        return KLRecord.model_validate(content)


def read_answers(path: Path) -> AnswersRecord:
    """Read what `write_answers` wrote.

    Raises:
        ApeError: It cannot be read, or holds something else.
    """
    with _reading(path, "file") as content:
        return AnswersRecord.model_validate(content)


def write_record(folder: Path, record: Record) -> None:
    """Say that a folder's run is finished, and what it is; written last, so that a killed run has none.

    Raises:
        ApeError: It cannot be written.
    """
    write_text(folder / RECORD_NAME, json.dumps(record.as_json(), indent=1) + "\n")


def write_divergences(folder: Path, found: KLRecord) -> None:
    """Keep a run's divergences beside its record.

    Raises:
        ApeError: They cannot be written.
    """
    write_text(folder / KL_NAME, json.dumps(found.as_json(), ensure_ascii=False) + "\n")


def write_answers(folder: Path, found: AnswersRecord) -> None:
    """Keep how likely the reference answers are to a run's model beside its record.

    Raises:
        ApeError: They cannot be written.
    """
    write_text(folder / ANSWERS_NAME, json.dumps(found.as_json(), ensure_ascii=False) + "\n")


@contextmanager
def _reading(path: Path, what: str) -> Iterator[Any]:
    content = read_json(path, what, _MEND)
    with checking(f"The {what} {path} is none that this version can read", _MEND):
        yield content
