"""What `compare` keeps beside a run, `run.json` and `kl.json`, read back and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts.json_schema import Rule, checking, validate
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import SETTINGS
from lm_eval_ape.storage.files import read_json

RECORD_NAME = "run.json"
KL_NAME = "kl.json"

_MEND = "Run lm-eval-ape compare again with the same --output_path; what is whole is not run again."
_COUNT: Rule = {"type": "integer", "minimum": 0}
_SECONDS: Rule = {"type": ["number", "null"], "minimum": 0}
_TEXT: Rule = {"type": "string", "minLength": 1}
_REQUEST: Rule = {
    "type": "object",
    "required": [
        "task", "doc_id", "chunk_tokens", "tokens", "dropped_tokens", "prefill_seconds", "seconds", "new_tokens",
    ],
    "properties": {
        "task": _TEXT,
        "doc_id": _COUNT,
        "chunk_tokens": {"type": "array", "items": _COUNT},
        "tokens": _COUNT,
        "dropped_tokens": _COUNT,
        "prefill_seconds": _SECONDS,
        "seconds": _SECONDS,
        "new_tokens": {"type": ["integer", "null"], "minimum": 0},
    },
}  # fmt: skip
_KEPT = ("memory_hits", "disk_hits", "misses", "hit_tokens", "miss_tokens")
_RECORD: Rule = {
    "type": "object",
    "required": ["label", "results_file", "identity", "requests", "peak_memory_bytes", "peak_memory_of"],
    "properties": {
        "label": _TEXT,
        "results_file": _TEXT,
        "identity": {"type": "object", "properties": {"model": {"type": "object"}, "versions": {"type": "object"}}},
        "command": {"type": ["string", "null"]},
        "created": {"type": "string"},
        "peak_memory_bytes": _COUNT,
        "peak_memory_of": {"type": "string"},
        "kv_cache": {
            "type": ["array", "null"],
            "items": {"type": "object", "required": list(_KEPT), "properties": dict.fromkeys(_KEPT, _COUNT)},
        },
        "requests": {"type": "array", "items": _REQUEST},
    },
}
_DIVERGENCES: Rule = {
    "type": "object",
    "required": ["identity", "left_out", "whole_texts", "samples"],
    "properties": {
        "identity": {
            "type": "object",
            "required": ["run", "num_tokens", "history", "after_eos"],
            "properties": {
                "run": {"type": "object"},
                "num_tokens": {"type": "integer", "minimum": 1},
                "history": _TEXT,
                "after_eos": _TEXT,
                "limit": {"type": ["number", "null"], "exclusiveMinimum": 0},
            },
        },
        "left_out": {
            "type": "object",
            "required": ["too_long", "no_context"],
            "properties": {"too_long": _COUNT, "no_context": _COUNT},
        },
        "whole_texts": {"type": "array", "items": _TEXT},
        "samples": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["task", "doc_id", "prompt_sha256", "tokens", "nats"],
                "properties": {
                    "task": _TEXT,
                    "doc_id": _COUNT,
                    "prompt_sha256": _TEXT,
                    "tokens": {"type": "array", "items": {"type": "string"}},
                    "nats": {"type": "array", "minItems": 1, "items": {"type": "number"}},
                },
            },
        },
    },
}


# What `comparison.specs.describe` reads of a record's settings; further ones are of later versions.
SETTINGS_RULE: Rule = {
    "type": "object",
    "required": ["strategy", "attn_temperature", "attn_scale"],
    "properties": {
        "strategy": {"type": "string"},
        "attn_temperature": {"type": "number", "exclusiveMinimum": 0},
        "attn_scale": {"type": "number", "exclusiveMinimum": 0},
        "factors_sha256": {"type": "string"},
        **{
            name: {"type": ["string", "number", "boolean", "null"]}
            for name in SETTINGS
            if name not in ("strategy", "attn_temperature", "attn_scale")
        },
    },
}


def read_record(path: Path) -> dict[str, Any]:
    """Read what `folder.write_record` wrote.

    Raises:
        ApeError: It cannot be read, is no such record, or names a results file outside its own folder.
    """
    record = _read(path, "record", _RECORD)
    named = path.parent / record["results_file"]
    if not named.resolve().is_relative_to(path.parent.resolve()):
        raise ApeError(
            f"The record {path} names the results file {record['results_file']!r} outside its folder. {_MEND}"
        )
    for number, request in enumerate(record["requests"]):
        if request["new_tokens"] is not None and None in (request["seconds"], request["prefill_seconds"]):
            raise ApeError(f"The record {path} has no seconds of requests[{number}], which generated tokens. {_MEND}")
    return record


def read_divergences(path: Path) -> dict[str, Any]:
    """Read what `kl.StrategyKL.measure` wrote.

    Raises:
        ApeError: It cannot be read, or holds something else.
    """
    content = _read(path, "file", _DIVERGENCES)
    for number, sample in enumerate(content["samples"]):
        if len(sample["tokens"]) != len(sample["nats"]):
            raise ApeError(f"The file {path} has not one divergence for each token in samples[{number}]. {_MEND}")
    return content


def _read(path: Path, what: str, rule: Rule) -> dict[str, Any]:
    content = read_json(path, what, _MEND)
    with checking(f"The {what} {path} is none that this version can read", _MEND):
        validate(content, rule)
    return dict(content)
