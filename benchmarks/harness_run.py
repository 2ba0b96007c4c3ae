"""A whole run of the harness: `ape-hf` against `hf` on the same rows, by strategy.

    python benchmarks/harness_run.py

Rows are random words under passage headings, cut to about so many tokens; the model is random, so only the seconds mean
something. Requests go one at a time, as `lm_eval --batch_size 1` sends them; loading the model is not counted.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from typing import Any

import datasets
from flags import parse, parser, positive
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from timing import Clock, Spread, Table, finish, ratios
from transformers import AutoTokenizer, PreTrainedModel
from workload import SEED, SHAPES, make_model

from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.pocket import pocket_path

STRATEGIES = ("sequential", "parallel", "sink", "ape", "sink+selective")
WORDS = "person place work teacher city friend river year house word".split()


def task(name: str, rows: int, words: int) -> dict[str, Any]:
    """Generation after a context of so many words in eight passages."""
    generator = random.Random(SEED)
    docs = []
    for _ in range(rows):
        texts = (" ".join(generator.choices(WORDS, k=words // 8)) for _ in range(8))
        docs.append({"context": "\n".join(f"Passage {number}:\n{text}." for number, text in enumerate(texts, 1))})
    return {
        "task": name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(docs)},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Read.\n{{context}}\n\nWho is the teacher?\nAnswer:",
        "doc_to_target": "city",
        "generation_kwargs": {"max_gen_toks": 8, "do_sample": False, "until": ["\n\n\n"]},
        "metric_list": [{"metric": "exact_match"}],
    }


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--words", type=positive, nargs="+", default=[240, 1600], help="words of a context")
    flags.add_argument("--rows", type=positive, default=8, help="rows of a run (default: %(default)s)")
    args = parse(flags)
    os.environ["HF_HUB_OFFLINE"] = "1"
    shape = SHAPES[args.shape]
    tokenizer = AutoTokenizer.from_pretrained(pocket_path())
    model: PreTrainedModel = make_model(shape, args.device, args.dtype, 8 * max(args.words) + 1024)
    shared: dict[str, Any] = {"tokenizer": tokenizer, "max_length": model.config.max_position_embeddings}
    models = {"hf": HFLM(model, **shared)}
    models |= {name: ApeHFLM(model, strategy=name, chunking="passages", max_chunks=4, **shared) for name in STRATEGIES}
    table = Table(
        f"Seconds of a run of {args.rows} rows, {shape.words()}, up to 4 chunks, 8 new tokens; ratios to hf",
        ["tokens of a prompt", "hf s", *STRATEGIES],
    )
    figures: list[dict[str, Any]] = []
    for words in args.words:
        config = task(f"words_{words}", args.rows, words)

        def run(lm: HFLM, config: dict[str, Any] = config) -> Callable[[], None]:
            def evaluate() -> None:
                simple_evaluate(
                    model=lm,
                    tasks=[config],
                    task_manager=TaskManager(include_defaults=False),
                    bootstrap_iters=0,
                    log_samples=False,
                    verbosity="ERROR",
                )

            return evaluate

        seconds = Clock(args.device, args.clock).in_turn({name: run(lm) for name, lm in models.items()}, args.repeats)
        doc = config["custom_dataset"]()["test"][0]["context"]
        tokens = len(tokenizer(doc)["input_ids"])
        against = {name: ratios(seconds[name], seconds["hf"]) for name in STRATEGIES}
        cells = (ratio.text("{:.2f}") for ratio in against.values())
        table.add(str(tokens), Spread.of(seconds["hf"]).text(), *cells)
        figures.append({"tokens": tokens, "ratios": against, **seconds})
    finish(args, [table], figures)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("HF_DATASETS_CACHE", cache)
        main()
