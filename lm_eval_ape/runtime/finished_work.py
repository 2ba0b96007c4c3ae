"""What a run has left in its folder so far, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Of a file below an output folder: its pattern, whether each of its lines counts, and what one and several are.
_UNITS = (
    ("*/run.json", False, "the run of 1 strategy", "the runs of {} strategies"),
    ("*/kl.json", False, "the KL of 1 strategy", "the KL of {} strategies"),
    ("*/answer_nats.json", False, "the answers' nats of 1 strategy", "the answers' nats of {} strategies"),
    ("teacher/*.safetensors", False, "the teacher of 1 prompt", "the teachers of {} prompts"),
    ("signals.*.jsonl", True, "divergences of 1 prompt", "divergences in {} parts"),
    ("answer_nats.*.jsonl", True, "answers' nats of 1 batch", "answers' nats of {} batches"),
    ("entropy.*.jsonl", True, "attention entropies of 1 prompt", "attention entropies in {} parts"),
    ("attention.*.jsonl", True, "attention of 1 prompt", "attention of {} prompts"),
    ("scores.*.jsonl", True, "scores of 1 point", "scores of {} points"),
    ("fit/*.safetensors", False, "1 fit", "{} fits"),
    ("training_state.safetensors", False, "the state of the training", "{} states of trainings"),
)


def what_is_kept(folder: Path) -> str:
    """The finished units in a folder and below; empty if there are none."""
    return ", ".join(_found(folder))


def _found(folder: Path) -> Iterator[str]:
    for pattern, by_line, one, several in _UNITS:
        files = list(folder.rglob(pattern))
        count = sum(file.read_bytes().count(b"\n") for file in files) if by_line else len(files)
        if count:
            yield one if count == 1 else several.format(count)
