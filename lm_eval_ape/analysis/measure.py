"""Attention of many cases on many prompts: split among processes, resumed where a killed run stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task
from tqdm import tqdm

from lm_eval_ape.analysis.attention import Attention, Recomputed, look
from lm_eval_ape.analysis.options import Options
from lm_eval_ape.analysis.sweep import Case
from lm_eval_ape.artefacts.identity import digest, read_settings
from lm_eval_ape.engine.non_finite import explained
from lm_eval_ape.harness.catalogue import FEWSHOT_SEED
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.harness.model_facts import model_key
from lm_eval_ape.harness.samples import Sample, gather
from lm_eval_ape.settings.strategy import Settings
from lm_eval_ape.storage.journal import Journal

Looks = dict[tuple[str, int], Attention]
"""Attention by task and document; of a document with several prompts, its first."""


class Observer:
    """Measures attention and keeps every result.

    Args:
        lm: The model.
        options: How the harness builds the prompts.
        tasks: The tasks.
        cache: Folder for results.
    """

    def __init__(self, lm: HarnessModel, options: Options, tasks: Mapping[str, Task], cache: Path) -> None:
        self.lm = lm
        self.options = options
        self.tasks = tasks
        self.model = model_key(lm.engine)
        self.journal = Journal(cache, "attention", lm.rank)
        self.known = {record["key"]: _attention(record["attention"]) for record in self.journal.records()}

    def observe(self, case: Case, what: str) -> Looks:
        """Measure a case's attention on the first documents of every task; every process gets the whole result.

        Args:
            case: The case.
            what: It in words, for the progress bar.

        Raises:
            ApeError: No prompt has a context that fits into the model's window.
        """
        samples = [sample for sample in self._samples(case.probed) if sample.number == 0]
        own = self.lm.processes.own(len(samples))
        progress = tqdm(own, f"Attention, {what}", unit="prompt", disable=self.lm.rank != 0)
        own_looks = [(index, self._sample(samples[index], case.probed)) for index in progress]
        looks = self.lm.processes.put_together(own_looks)
        return {(sample.task, sample.doc_id): attention for sample, attention in zip(samples, looks, strict=True)}

    def _samples(self, settings: Settings) -> list[Sample]:
        options = self.options
        for task in self.tasks.values():
            # As the harness does before each run, so that the same examples are chosen.
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        limit = min(options.probe_limit, options.limit or options.probe_limit)
        with self.lm.under(settings):
            return gather(self.lm, self.tasks, options, num_tokens=1, limit=limit).samples

    def _sample(self, sample: Sample, settings: Settings) -> Attention:
        prompt = sample.prompt
        factors = settings.factors and settings.factors.digest
        content: list[Any] = [settings.attn_temperature, settings.attn_scale, factors, read_settings(settings)]
        # What an earlier version measured less of is measured again.
        content.append(Attention._fields)
        key = digest([self.model, *content, prompt.prefix, prompt.chunks, prompt.query])
        if key not in self.known:
            self.known[key] = explained(self.lm, lambda: look(self.lm, prompt, settings, str(sample)))
            attention = self.known[key]
            recomputed = attention.recomputed and attention.recomputed._asdict()
            self.journal.append({"key": key, "attention": {**attention._asdict(), "recomputed": recomputed}})
        return self.known[key]


def _attention(record: dict[str, Any]) -> Attention:
    """Attention as the journal holds it."""
    recomputed = record.get("recomputed")
    return Attention(**{**record, "recomputed": recomputed and Recomputed(**recomputed)})


def labelled(cases: Sequence[Case]) -> list[tuple[Case, str]]:
    """Cases with their number and label, for progress bars."""
    return [(case, f"{number} of {len(cases)}: {case.spec.label}") for number, case in enumerate(cases, start=1)]
