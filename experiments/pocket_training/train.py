"""Train the pocket model from a seed: ``python experiments/train_pocket.py --output DIR``.

Started again with the same options, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from lm_eval_ape.runtime.exit_status import exit_status
from lm_eval_ape.runtime.folder_lock import hold
from lm_eval_ape.storage.files import write_text, writing_told
from pocket_training.card import write_checkpoint
from pocket_training.curriculum import CURRICULUM, Lesson
from pocket_training.trainer import Trainer
from pocket_training.vocabulary import build_tokenizer

LOG_NAME: Final = "training_log.jsonl"
_STATE_NAME: Final = "training_state.safetensors"
_LOG_EVERY: Final = 20
_COMMAND: Final = "python experiments/train_pocket.py"


def train(
    output: Path,
    *,
    seed: int = 0,
    curriculum: Sequence[Lesson] = CURRICULUM,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
) -> LlamaForCausalLM:
    """Train the pocket model and write its checkpoint, or go on with a training that was stopped.

    Args:
        output: folder for the log, the training state and the finished checkpoint.
        seed: of the first weights and of all rows.
        curriculum: the lessons, in order.
        checkpoint_every: steps between two writes of the training state.
        stop_after: stop when so many steps have been done in all, leaving the state for the next call.

    Returns:
        The model; the finished checkpoint is written only when every lesson is over.

    Raises:
        ApeError: another training holds the folder, its state is damaged or of another training, or a file cannot be
            written.
    """
    with hold(output):
        return _train(output, seed, curriculum, checkpoint_every, stop_after)


def _train(
    output: Path, seed: int, curriculum: Sequence[Lesson], checkpoint_every: int, stop_after: int | None
) -> LlamaForCausalLM:
    state, log = output / _STATE_NAME, output / LOG_NAME
    tokenizer = build_tokenizer()
    trainer = Trainer(tokenizer, curriculum, seed)
    if state.exists():
        trainer.resume(state)
    _cut(log, trainer.progress.total)
    most = sum(lesson.steps for lesson in curriculum)
    with writing_told(log), log.open("a") as lines, tqdm(total=most, initial=trainer.progress.total) as bar:
        while not trainer.done and trainer.progress.total != stop_after:
            lesson_index = trainer.progress.lesson
            report = trainer.step()
            bar.update()
            bar.set_description(report["lesson"])
            bar.set_postfix(loss=report["loss"], **report["accuracy"])
            ended = trainer.progress.lesson != lesson_index
            if ended or report["step"] % _LOG_EVERY == 0:
                lines.write(json.dumps(report) + "\n")
                lines.flush()
            if ended or report["total_steps"] % checkpoint_every == 0 or report["total_steps"] == stop_after:
                # The log first: the state must not know of steps that it does not.
                os.fsync(lines.fileno())
                trainer.save(state)
    if trainer.done:
        with writing_told(output):
            write_checkpoint(
                output,
                trainer.model,
                tokenizer,
                seed=seed,
                steps=trainer.progress.total,
                tokens=trainer.progress.tokens,
                seconds=trainer.progress.seconds,
                log_name=LOG_NAME,
            )
    return trainer.model


def _cut(log: Path, steps: int) -> None:
    """Take from the log what it says of steps that were done after the state was written: they are done again."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    write_text(log, "".join(line for line in whole if json.loads(line)["total_steps"] <= steps))


def main() -> int:
    """The command line.

    Returns:
        The exit status, as for `lm-eval-ape`.
    """
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more may change the last bits")
    parser.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="of all lessons together")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def work() -> int:
        train(
            options.output,
            seed=options.seed,
            checkpoint_every=options.checkpoint_every,
            stop_after=options.stop_after,
        )
        return 0

    return exit_status(_COMMAND, [*_COMMAND.split(), *sys.argv[1:]], work)
