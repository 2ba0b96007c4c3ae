"""Small tasks for the harness, over documents made here."""

from __future__ import annotations

from typing import Any

import datasets
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

PROMPT = "Answer the question.\n{{context}}\n\nQuestion: {{question}}\nAnswer:"
WORDS = "city film river people father director passage question answer given born words following".split()


def documents(count: int, passages: int = 3, words: int = 9) -> list[dict[str, Any]]:
    """Documents whose contexts differ in length and hold passages under headings."""
    rows = []
    for number in range(count):
        texts = [
            " ".join(WORDS[(number * 7 + passage * 5 + word) % len(WORDS)] for word in range(words + number + passage))
            for passage in range(passages)
        ]
        context = "\n".join(f"Passage {index}:\n{text}." for index, text in enumerate(texts, start=1))
        rows.append(
            {
                "context": context,
                "question": f"Which {WORDS[number % len(WORDS)]}?",
                "choices": [WORDS[number % 5], "the " + WORDS[number % 3 + 5], "no"],
                "answer": number % 3,
            }
        )
    return rows


def task(name: str, kind: str, docs: list[dict[str, Any]], **config: Any) -> dict[str, Any]:
    """A task configuration over these documents, of one of the harness's request types."""
    shared = {
        "task": name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(docs)},
        "test_split": "test",
        "doc_to_text": PROMPT,
    }
    kinds: dict[str, dict[str, Any]] = {
        "generate_until": {
            "output_type": "generate_until",
            "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"max_gen_toks": 6, "do_sample": False, "until": ["\n\n\n"]},
            "metric_list": [{"metric": "exact_match"}],
        },
        "multiple_choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc"}],
        },
        "loglikelihood_rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": PROMPT,
            "metric_list": [{"metric": "word_perplexity"}],
        },
    }
    return {**shared, **kinds[kind], **config}


def evaluate(model: str, model_args: dict[str, Any], *tasks: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Run tasks through the harness and return its results with samples."""
    return simple_evaluate(
        model=model,
        model_args={"device": "cpu", "dtype": "float64", **model_args},
        tasks=list(tasks),
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        **options,
    )


def responses(results: dict[str, Any], name: str) -> list[Any]:
    """Every response of a task, in the documents' order."""
    return [sample["resps"] for sample in sorted(results["samples"][name], key=lambda sample: sample["doc_id"])]
