"""What the demo shows of each model: on which tasks, in how many chunks, under which strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Plan(NamedTuple):
    """What is shown of a model.

    Attributes:
        words: The prompts in words; `{limit}` and `{chunks}` stand for numbers.
        model_args: The model and how contexts are cut.
        metadata: The tasks' options.
        tasks: Tasks with the names that the table gives them.
        calibration: The task on whose prompts (T, S) is chosen.
        samples: How many of its prompts are read; None for all.
        strategies: What is compared.
        limit: Questions of each task.
        chunks: How many chunks a context is read in.
        batch_size: Questions at a time.
        kl_tokens: New tokens over which the KL is measured.
        kl_limit: How many questions of each task it is measured on.
    """

    words: str
    model_args: Mapping[str, Any]
    metadata: Mapping[str, Any]
    tasks: Mapping[str, str]
    calibration: str
    samples: int | None
    strategies: tuple[str, ...]
    limit: int
    chunks: int
    batch_size: int
    kl_tokens: int
    kl_limit: int


def pocket(passages: int) -> Plan:
    """The shipped model, on questions about its small world."""
    return Plan(
        words=f"{{limit}} questions a task over {passages} passages in {{chunks}} chunks",
        model_args={"pretrained": "pocket", "chunking": "passages"},
        metadata={"pocket_passages": passages},
        tasks={"ape_pocket_onehop_test": "onehop", "ape_pocket_twohop_test": "twohop"},
        calibration="ape_pocket_twohop_calibration",
        samples=None,
        strategies=("sequential", "parallel", "sink", "ape", "recompute"),
        limit=168,
        chunks=2,
        batch_size=8,
        kl_tokens=8,
        kl_limit=32,
    )


def smollm2(fewshot_dir: str | None) -> Plan:
    """A real model, on few-shot classification where there is data, else on texts that need none."""
    if fewshot_dir is not None:
        words = "{limit} texts a task to label, after 77 labelled ones in {chunks} chunks"
        metadata: Mapping[str, Any] = {"fewshot_dir": fewshot_dir, "fewshot_examples": 77}
        tasks = {"ape_fewshot_trec_test": "TREC", "ape_fewshot_banking77_test": "BANKING77"}
        calibration = "ape_fewshot_trec_calibration"
    else:
        words = "{limit} prompts a task of about 700 tokens, contexts in {chunks} chunks"
        metadata = {
            **{"perplexity_path": "python", "perplexity_tokens": 700, "perplexity_query_tokens": 150},
            **{"keyvalue_pairs": 8, "needle_words": 450},
        }
        tasks = {"ape_perplexity_test": "perplexity", "ape_keyvalue_test": "key-value", "ape_needle_test": "needle"}
        calibration = "ape_needle_calibration"
    return Plan(
        words=words,
        # Strategies share chunks that are encoded alike.
        model_args={"pretrained": "smollm2", "dtype": "float32", "kv_cache_bytes": "2GiB"},
        metadata=metadata,
        tasks=tasks,
        calibration=calibration,
        samples=8,
        strategies=("sequential", "parallel", "sink", "ape", "sink[positions=serial]", "recompute[recompute=0.15]"),
        limit=6,
        chunks=4,
        batch_size=4,
        kl_tokens=4,
        kl_limit=6,
    )
