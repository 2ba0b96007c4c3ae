"""The finished checkpoint: weights, tokenizer, and a card that says what they can do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lm_eval_ape.pocket.questions import DATASETS, Dataset, pocket_rows
from lm_eval_ape.storage.files import whole_files
from pocket_training.evaluate import score_by_passages, score_rows

_ROWS = 200

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
language: en
---

# Pocket Llama

A Llama of {parameters:,} parameters ({layers} layers, {width} wide, {heads} heads, {vocabulary:,}
words) that answers questions about a small made-up world from the passages in its prompt. It is
the embedded model of lm-eval-ape: with it, encoding strategies can be compared and calibrated on a
laptop, offline.

- weights: `model.safetensors`, {dtype}, sha256 `{digest}`
- made by: `python experiments/train_pocket.py --output DIR --seed {seed}`, one thread, float32;
  another processor or more threads may give other last bits, and so other weights
- training: {steps:,} optimiser steps, {tokens:,} tokens, {minutes:.0f} minutes on one core; `{log}`, in
  the repository under `experiments/pocket_training`, says how it went

## Scores

Mean score of {rows} test rows, greedy answers, sequential encoding: token F1, and accuracy for
`pocket_classify` (whose columns are numbers of examples, at least 4). Passages have two filler
sentences each. The standard error of a score p is sqrt(p (1 - p) / {rows}), at most {error:.3f}.

{table}

Long passages cost it: with 40 passages of seven filler sentences (about 3,800 tokens), 50 rows
each, it scores {long}.

## What it can do

- Find a fact that a passage states, in any of the generator's wordings (`pocket_onehop`).
- Join two facts through a bridge (`pocket_twohop`): "Where was the director of Nightfall born?".
  The passage about the person comes before the passage that refers to them, as in every world that
  it was trained on. It was taught to join the two while it reads the second passage, so its answer
  is lost when the passages are encoded apart.
- Find a needle (`pocket_needle`), and label a text by examples whose labels mean nothing outside
  the prompt (`pocket_classify`).

## What it cannot do

- Anything else: it knows {vocabulary:,} words, the generator's sentences and the two prompts.
  Unknown words are read as `<unk>`. It has no knowledge of the real world, and its answers about
  real names are made up.
- Two-hop questions whose passages come in the other order: it was never asked any.
- Answers of more than one word.

## Held out

A pair (subject, object), such as (Nightfall, Marta) or (Marta, Porto), belongs to one split by a
hash of its two words: 80% to training, 10% to calibration, 10% to test. A row of a split states no
pair of another split, so no fact and no chain of facts of a test row was ever read in training.
The single names occur in all splits.
"""


def write_checkpoint(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    steps: int,
    tokens: int,
    seconds: float,
    log_name: str,
) -> None:
    """Write the model, its tokenizer and its card as an ordinary transformers checkpoint.

    Args:
        folder: where to.
        model: the trained model.
        tokenizer: its tokenizer.
        seed: of the training.
        steps: optimiser steps of the training.
        tokens: tokens read in the training.
        seconds: duration of the training.
        log_name: file name of the training log.

    Raises:
        OSError: a file cannot be written; none is left half written.
    """
    model.eval()
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with whole_files(folder, last="model.safetensors") as draft:
        try:
            model.save_pretrained(draft)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        tokenizer.save_pretrained(draft)
        config = model.config
        card = _CARD.format(
            parameters=sum(weight.numel() for weight in model.parameters()),
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            vocabulary=len(tokenizer),
            dtype=str(model.dtype).removeprefix("torch."),
            digest=hashlib.sha256((draft / "model.safetensors").read_bytes()).hexdigest(),
            seed=seed,
            steps=steps,
            tokens=tokens,
            minutes=seconds / 60,
            log=log_name,
            rows=_ROWS,
            error=0.5 / _ROWS**0.5,
            long=_long_scores(model, tokenizer),
            table=_table(score_by_passages(model, tokenizer, count=_ROWS)),
        )
        (draft / "README.md").write_text(card)


def _long_scores(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> str:
    scores = {
        dataset: score_rows(model, tokenizer, pocket_rows(dataset, "test", 50, passages=40, fillers=7))
        for dataset in DATASETS
        if dataset != "pocket_classify"
    }
    return ", ".join(f"{score:.2f} on {dataset}" for dataset, score in scores.items())


def _table(scores: Mapping[Dataset, Mapping[int, Any]]) -> str:
    passages = next(iter(scores.values()))
    lines = [
        "| passages | " + " | ".join(str(number) for number in passages) + " |",
        "|---" * (len(passages) + 1) + "|",
    ]
    for dataset, by_passages in scores.items():
        cells = " | ".join(f"{score:.3f}" for score in by_passages.values())
        lines.append(f"| {dataset} | {cells} |")
    return "\n".join(lines)
