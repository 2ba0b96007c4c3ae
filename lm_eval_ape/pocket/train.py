"""Train the pocket model from a seed: ``python -m lm_eval_ape.pocket.train --output DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from .card import write_checkpoint
from .curriculum import CURRICULUM, Lesson
from .trainer import Trainer
from .vocabulary import build_tokenizer

LOG_NAME: Final = "training_log.jsonl"
_STATE_NAME: Final = "training_state.pt"
_LOG_EVERY: Final = 20


def train(
    output: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    curriculum: Sequence[Lesson] = CURRICULUM,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
) -> LlamaForCausalLM:
    """Train the pocket model and write its checkpoint.

    Args:
        output: folder for the log, the training state and the finished checkpoint.
        seed: of the first weights and of all rows.
        resume: go on from the folder's training state, if it has one.
        curriculum: the lessons, in order.
        checkpoint_every: steps between two writes of the training state.
        stop_after: stop when so many steps have been done in all, leaving the state for `resume`.

    Returns:
        The model; the finished checkpoint is written only when every lesson is over.
    """
    output.mkdir(parents=True, exist_ok=True)
    state, log = output / _STATE_NAME, output / LOG_NAME
    tokenizer = build_tokenizer()
    trainer = Trainer(tokenizer, curriculum, seed)
    if resume and state.is_file():
        trainer.resume(state)
    else:
        log.unlink(missing_ok=True)
    most = sum(lesson.steps for lesson in curriculum)
    with log.open("a") as lines, tqdm(total=most, initial=trainer.progress.total) as bar:
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
            if ended or report["total_steps"] % checkpoint_every == 0:
                trainer.save(state)
    trainer.save(state)
    if trainer.done:
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where the folder stands")
    parser.add_argument("--threads", type=int, default=1, help="more may change the last bits")
    parser.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="of all lessons together")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(
        options.output,
        seed=options.seed,
        resume=options.resume,
        checkpoint_every=options.checkpoint_every,
        stop_after=options.stop_after,
    )


if __name__ == "__main__":
    main()
