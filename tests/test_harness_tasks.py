"""The harness's own long-context tasks: what is cut is their context, and their question stays whole after it.

Their configurations and Python are the harness's, unchanged; only downloads give rows that are made in `harness_rows`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import datasets
import evaluate
import huggingface_hub
import lm_eval.tasks
import nltk
import pytest
import requests
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from helpers.harness_rows import FAMILIES, ROWS, Family, Row, haystack, prepare_niah, question_answering
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.prompts.contexts import by_entry, by_length
from lm_eval_ape.prompts.prompt import Source
from lm_eval_ape.prompts.splitter import Splitter
from lm_eval_ape.settings.context_table import packaged_table
from lm_eval_ape.settings.strategy import resolve
from lm_eval_ape.tasks import TASKS_DIR

HARNESS = Path(lm_eval.tasks.__file__).parent
# Prompts of so many words: RULER searches without end for smaller ones.
METADATA = {
    **{"tokenizer": "words", "max_seq_lengths": [1200]},
    **{"keyvalue_pairs": 12, "keyvalue_rows": 40, "needle_words": 200, "needle_rows": 40},
}
STRATEGIES = ["sequential", "parallel", "sink", "selective", "ape"]
IN_TURNS = ["ruler", "babilong", "drop", "boolq", "record", "jsquad"]


class Words:
    """A tokenizer whose tokens are words."""

    def __init__(self, text: str) -> None:
        self.input_ids = text.split()


class Downloads:
    """Stands in for the hub: whatever is asked for, every split of it has the same rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def load_dataset(self, path: str, *args: Any, split: str | None = None, **options: Any) -> Any:
        docs = [row.doc for row in self.rows]
        asked, examples = datasets.Dataset.from_list(docs[:2]), datasets.Dataset.from_list(docs[2:])
        if split is not None:
            return asked
        splits = dict.fromkeys(("test", "validation", "valid", *self._own_splits), asked)
        return datasets.DatasetDict({**splits, "train": asked if path.endswith(self._train_only) else examples})

    _train_only = ("longbench-v2", "qa4mre", "CLIcK")
    # BABILong, InfiniteBench and MuSR call their splits by their tasks.
    _own_splits = (
        *(f"qa{number}" for number in range(1, 21)),
        *("code_debug", "code_run", "kv_retrieval", "longbook_choice_en", "longbook_qa_chn", "longbook_qa_en"),
        *("longbook_sum_en", "longdialogue_qa_en", "math_find", "number_string", "passkey"),
        *("murder_mysteries", "object_placements", "team_allocation"),
    )


def first_rows(rows: Iterable[int], **_: Any) -> Iterator[int]:
    """In place of a progress bar: of five hundred documents, as many as are asked about or serve as examples."""
    return islice(rows, ROWS)


def forget_tasks() -> None:
    """Let the Python of the tasks be loaded anew: what it imported is its own."""
    folders = tuple(f"lm_eval.tasks.{family.folder.split('/')[0]}." for family in FAMILIES.values() if family.folder)
    for name in [name for name in sys.modules if name.startswith(folders)]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Downloads]:
    """Everything that the tasks download, made here."""
    made = Downloads()
    forget_tasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", made.load_dataset)
        metric = tmp_path_factory.mktemp("metric") / "metrics" / "scrolls.py"
        metric.parent.mkdir()
        metric.touch()
        patch.setattr(huggingface_hub, "hf_hub_download", lambda **_: str(metric))
        patch.setattr(evaluate, "load", lambda *_, **__: None)
        patch.setattr(nltk.data, "find", lambda *_: None)
        # What tasks score with is not installed, or gone from newer releases.
        for name in ("bert_score", "radgraph", "transformers.data.metrics", "transformers.data.metrics.squad_metrics"):
            patch.setitem(sys.modules, name, MagicMock(name=name))
        load_tokenizer = transformers.AutoTokenizer.from_pretrained
        patch.setattr(
            transformers.AutoTokenizer,
            "from_pretrained",
            lambda name, **options: Words if name == "words" else load_tokenizer(name, **options),
        )
        niah = prepare_niah()
        patch.setattr(niah, "get_haystack", haystack)
        for name in ("prepare_niah", "cwe_utils", "fwe_utils", "qa_utils", "vt_utils"):
            module = import_module(f"lm_eval.tasks.ruler.{name}")
            patch.setattr(module, "tqdm", first_rows, raising=False)
            # By which the harness knows a module that need not be loaded again.
            patch.setattr(module, "__mtime__", Path(str(module.__file__)).stat().st_mtime_ns, raising=False)
        patch.setattr(niah, "cached_sent_tokenize", lambda text: re.split(r"(?<=\.)\s+", text))
        patch.setattr(requests, "get", lambda url, **_: Answered(url))
        yield made
    forget_tasks()


class Answered:
    """What a server answers RULER with."""

    def __init__(self, url: str) -> None:
        self.url = url

    def raise_for_status(self) -> None:
        pass

    def json(self) -> Any:
        return question_answering(self.url)


@pytest.fixture(scope="module")
def lm(checkpoint: str) -> ApeHFLM:
    return ApeHFLM(pretrained=checkpoint, device="cpu", dtype="float64")


def manager(family: Family) -> TaskManager:
    folder = HARNESS / family.folder if family.folder else TASKS_DIR
    return TaskManager(include_path=str(folder), include_defaults=False, metadata=dict(METADATA))


def requests_of(
    family: Family, name: str, tasks: TaskManager, downloads: Downloads, **chat: Any
) -> list[tuple[Instance, Row]]:
    """The requests of a task's first two documents, each with what its maker says."""
    downloads.rows = family.rows(name) if family.rows else []
    (task,) = tasks.load([name])["tasks"].values()
    if family.shots is not None:
        task.set_config("num_fewshot", family.shots)
    task.set_fewshot_seed(1)
    task.build_all_requests(limit=2, **chat)
    rows = downloads.rows
    return [
        (request, family.read(request.doc, name) if family.read else rows[request.doc_id]) for request in task.instances
    ]


def chat_of(lm: ApeHFLM, in_turns: bool) -> dict[str, Any]:
    return {
        "apply_chat_template": True,
        "fewshot_as_multiturn": in_turns,
        "chat_template": lm.apply_chat_template,
        "tokenizer_name": lm.tokenizer_name,
    }


def check(lm: ApeHFLM, family: Family, request: Instance, row: Row) -> None:
    text = request.args[0]
    splitter = Splitter(lm.cutter.ids.generated, resolve({"chunk_tokens": 150}), 100_000)
    prompt = splitter.split(text, Source(str(request.task_name), int(request.doc_id or 0), request.doc), 8)
    ((_, place),) = splitter.tally().places
    assert family.place in place
    assert list(prompt.ids) == HFLM.tok_encode(lm, text)
    prefix, context, query = (lm.tokenizer.decode(ids) for ids in (prompt.prefix, sum(prompt.chunks, ()), prompt.query))
    # A first token that begins with the space before the context is not cut with it, nor the prompt's last one.
    assert context.strip() in row.context
    assert len(row.context.strip()) - len(context.strip()) < 20
    assert row.question in query
    assert not row.question or row.question not in prefix + context


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_cut_and_the_question_is_not(family: str, lm: ApeHFLM, downloads: Downloads) -> None:
    one = FAMILIES[family]
    tasks = manager(one)
    for name in one.tasks:
        for request, row in requests_of(one, name, tasks, downloads):
            check(lm, one, request, row)


@pytest.mark.parametrize(
    ("family", "in_turns"), [*((family, False) for family in FAMILIES), *((family, True) for family in IN_TURNS)]
)
def test_the_same_in_a_chat_template(family: str, in_turns: bool, lm: ApeHFLM, downloads: Downloads) -> None:
    one = FAMILIES[family]
    tasks = manager(one)
    for name in one.tasks[:3]:
        for request, row in requests_of(one, name, tasks, downloads, **chat_of(lm, in_turns)):
            check(lm, one, request, row)


@pytest.fixture(scope="module")
def some(lm: ApeHFLM, downloads: Downloads) -> list[Instance]:
    """A request of each kind that a family has, and of some families in a chat template."""
    found: list[Instance] = []
    for name, family in FAMILIES.items():
        tasks = manager(family)
        for chat in [{}, chat_of(lm, True)] if name in IN_TURNS else [{}]:
            made = [request for request, _ in requests_of(family, family.tasks[0], tasks, downloads, **chat)]
            found += {request.request_type: request for request in made}.values()
    return found


def shortened(request: Instance) -> Instance:
    """The same request for few tokens."""
    if request.request_type == "generate_until":
        request.arguments = request.args[0], {"until": ["\n\n\n"], "max_gen_toks": 2, "do_sample": False}
    return request


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_answers(strategy: str, checkpoint: str, some: list[Instance]) -> None:
    lm = ApeHFLM(pretrained=checkpoint, device="cpu", dtype="float64", strategy=strategy, chunk_tokens=600)
    for kind in ("generate_until", "loglikelihood"):
        requests = [shortened(request) for request in some if request.request_type == kind]
        if strategy != "ape":
            # Neighbours in the list of strategies have the one half and the other.
            requests = requests[STRATEGIES.index(strategy) % 2 :: 2]
        answers = getattr(lm, kind)(requests, disable_tqdm=True)
        assert len(answers) == len(requests) > 5
        assert all(isinstance(answer, str) or answer[0] < 0 for answer in answers)


# Tasks without a text

ASKED = "What is the capital of that country, and why did its kings choose it?"


@pytest.mark.parametrize(
    ("prompt", "doc"),
    [
        ("{Question}\nA. {A}\nB. {B}\nAnswer:", {"Question": ASKED, "A": "One", "B": "Another one"}),
        ("{question}\nA. {option_a}\nAnswer:", {"question": ASKED, "option_a": "One", "subject": "capital"}),
        ("{Question}\n(A) {choice1}\nAnswer:", {"Question": ASKED, "choice1": "Another one"}),
        ("{question}\nA. {mc_answer1}\nAnswer:", {"question": ASKED, "mc_answer1": "Another one"}),
        ("{question}\nA. {sol1}\nB. {sol2}\nAnswer:", {"question": ASKED, "sol1": "One", "sol2": "Another one"}),
        ("{question_stem}\nAnswer:", {"question_stem": ASKED, "choices": {"text": ["the capital"]}}),
        ("Question: {qtext}\nAnswer:", {"qtext": ASKED}),
        ("{input_question}\nAnswer:", {"input_question": ASKED}),
        ("{question}\nA. One\nB. Two\nAnswer:", {"question": ASKED, "choices": {"text": ["One", "Two"]}}),
        ("{activity_label}: {query} and", {"query": ASKED, "activity_label": "Kings"}),
    ],
    ids=lambda given: given[:20] if isinstance(given, str) else "",
)
def test_neither_question_nor_choices_are_a_text(prompt: str, doc: dict[str, Any]) -> None:
    assert by_length(prompt.format(**doc), doc) is None


# The table itself


def test_every_entry_is_tried_above() -> None:
    tried = {packaged_table().entry(task) for family in FAMILIES.values() for task in family.tasks}
    assert tried >= set(packaged_table().entries)


@pytest.mark.parametrize(
    "text",
    ["word " * 200_000, "a" * 1_000_000, "\n" * 1_000_000, "Word.\n\n" * 125_000, "a -> b\n" * 125_000]
    + [start * 10_000 for start in ("\n\n  - b", "Q: a\nA: Among A through", "Question: \nAnswer: ")],
    ids=lambda text: repr(text[:12]),
)
def test_patterns_take_no_time_for_long_texts(text: str) -> None:
    for entry in packaged_table().entries:
        begun = time.process_time()
        by_entry(text, {}, entry)
        assert time.process_time() - begun < 2
