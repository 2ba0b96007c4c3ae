"""Greedy answers of a checkpoint to pocket rows, with plain transformers: sequential encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lm_eval_ape.pocket.questions import DATASETS, PROMPTS, Dataset, pocket_rows
from pocket_training.scores import accuracy, qa_f1

_NEW_TOKENS = 4


@torch.inference_mode()
def answer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    batch_size: int = 8,
) -> list[str]:
    """The model's greedy continuation of each prompt, up to its end or four tokens."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        inputs = tokenizer(list(prompts[start : start + batch_size]), return_tensors="pt", padding=True)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return answers


def score_rows(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean score of the rows, from 0 to 1: accuracy for classification, else F1."""
    prompts = [PROMPTS[row["dataset"]].format(**row) for row in rows]
    scores = [
        accuracy(text, row["answers"], row["all_classes"]) if row["all_classes"] else qa_f1(text, row["answers"])
        for text, row in zip(answer(model, tokenizer, prompts), rows, strict=True)
    ]
    return sum(scores) / len(scores)


def score_by_passages(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    passages: Sequence[int] = (2, 5, 10, 20, 40),
    count: int = 100,
) -> dict[Dataset, dict[int, float]]:
    """The mean score on test rows of every dataset, by the number of passages of a context."""
    model.eval()
    return {
        dataset: {
            number: score_rows(model, tokenizer, pocket_rows(dataset, "test", count, passages=number))
            for number in passages
        }
        for dataset in DATASETS
    }
