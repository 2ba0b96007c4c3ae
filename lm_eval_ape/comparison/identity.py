"""Everything a strategy's run depends on: a finished run is reused only if none of it has changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from lm_eval.api.task import Task
from lm_eval.utils import handle_non_serializable

from lm_eval_ape.artefacts.identity import versions
from lm_eval_ape.artefacts.model_digest import full_digest, tokenizer_digest
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import IDLE
from lm_eval_ape.harness.model_facts import device_name, model_facts
from lm_eval_ape.settings.strategy import SETTINGS, Settings

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def shared_identity(lm: ApeHFLM, options: Options, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """What all strategies of a comparison have in common.

    Args:
        lm: The loaded model.
        options: How requests are built and batched.
        tasks: The tasks, not yet run.
    """
    # Settings differ from strategy to strategy, and the model has its own facts.
    arguments = {
        name: value for name, value in options.model_args.items() if name not in ("pretrained", *SETTINGS, *IDLE)
    }
    content = {
        "model": {
            **model_facts(lm),
            "weights": full_digest(lm.model),
            "tokenizer": tokenizer_digest(lm.tokenizer),
            "max_length": lm.max_length,
            "mixed_precision": lm.mixed_precision_dtype,
        },
        "model_args": arguments,
        "tasks": {name: _task(task) for name, task in tasks.items()},
        "limit": options.limit,
        "requests": {
            "num_fewshot": options.num_fewshot,
            "apply_chat_template": options.apply_chat_template,
            "chat_template_sha256": _digest(lm.tokenizer.chat_template) if options.apply_chat_template else None,
            "fewshot_as_multiturn": options.multiturn,
            "system_instruction": options.system_instruction,
            "gen_kwargs": options.gen_kwargs,
        },
        "batch_size": options.batch_size,
        "device": device_name(lm),
        "versions": versions(),
    }
    return dict(json.loads(json.dumps(content, default=str)))


def identity(shared: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """One strategy's identity."""
    return {"settings": json.loads(json.dumps(settings.record)), **shared}


def _task(task: Task) -> dict[str, Any]:
    documents = hashlib.sha256()
    for doc in task.eval_docs:
        documents.update(json.dumps(doc, sort_keys=True, default=str).encode())
    return {
        "version": str((task.config.metadata or {}).get("version", task.VERSION)),
        "config_sha256": _digest(task.dump_config()),
        "documents_sha256": documents.hexdigest(),
    }


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=handle_non_serializable)
    # Functions without source are named by where they lie in memory.
    return hashlib.sha256(_ADDRESS.sub("", text).encode()).hexdigest()
