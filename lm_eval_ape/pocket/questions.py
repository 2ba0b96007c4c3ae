"""Questions about a world, the prompts they are asked in, and rows in LongBench's format."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

from .names import TOPIC
from .passages import state, write_context
from .relations import PERSONAL, RELATIONS, Chain, Fact
from .world import Split, World, objects_of, sample_world

Dataset = Literal["pocket_onehop", "pocket_twohop", "pocket_needle", "pocket_classify"]
DATASETS: Final[tuple[Dataset, ...]] = get_args(Dataset)

_QA_ORDER: Final = (
    "Answer the question based on the given passages. Only give me the answer and do not output any other words."
)
# The words of LongBench's 2wikimqa prompt.
_QA_PROMPT: Final = (
    f"{_QA_ORDER}\n\nThe following are given passages.\n{{context}}\n\n{_QA_ORDER}\n\nQuestion: {{input}}\nAnswer:"
)
_CLASSIFY_PROMPT: Final = (
    "Give the label of the last text. The following are examples.\n\n{context}\n\nText: {input}\nLabel:"
)
PROMPTS: Final[dict[Dataset, str]] = {
    "pocket_onehop": _QA_PROMPT,
    "pocket_twohop": _QA_PROMPT,
    "pocket_needle": _QA_PROMPT,
    "pocket_classify": _CLASSIFY_PROMPT,
}
_DATASET_OF: Final[dict[str, Dataset]] = {"secret": "pocket_needle", "label": "pocket_classify"}
_TWO_HOPS: Final = {
    "birthplace": (
        "Where was the {role} of {s} born?",
        "What is the place of birth of the {role} of {s}?",
    ),
    "job": ("What was the job of the {role} of {s}?", "What did the {role} of {s} work as?"),
    "spouse": (
        "Who was married to the {role} of {s}?",
        "Who was the spouse of the {role} of {s}?",
    ),
}


def split_prompt(dataset: Dataset) -> tuple[str, str]:
    """The prompt up to its question, with `{context}`, and its question, with `{input}`."""
    prompt = PROMPTS[dataset]
    start = prompt.rindex("\n\n", 0, prompt.index("{input}")) + 2
    return prompt[:start], prompt[start:]


class Question(NamedTuple):
    """A question and its one answer."""

    text: str
    answer: str
    dataset: Dataset


@dataclass(frozen=True)
class Reading:
    """A context and what may be asked after it."""

    context: str
    questions: tuple[Question, ...]
    classes: tuple[str, ...] = ()


def ask(fact: Fact, rng: random.Random) -> Question:
    """The question whose answer is the fact's object."""
    text = rng.choice(RELATIONS[fact.relation].questions).format(s=fact.subject)
    return Question(text, fact.object, _DATASET_OF.get(fact.relation, "pocket_onehop"))


def ask_chain(chain: Chain, rng: random.Random) -> Question:
    """The question that names the chain's start, hides its bridge and asks for its end."""
    wording = rng.choice(_TWO_HOPS[chain.second.relation])
    text = wording.format(role=RELATIONS[chain.first.relation].role, s=chain.first.subject)
    return Question(text, chain.second.object, "pocket_twohop")


def read_world(world: World, rng: random.Random, fillers: list[int]) -> Reading:
    """Write a world down and ask everything that can be asked about it."""
    questions = [ask(fact, rng) for fact in (*world.facts, *world.secrets)]
    questions += [ask_chain(chain, rng) for chain in world.chains]
    return Reading(write_context(world, rng, fillers), tuple(questions))


def read_examples(rng: random.Random, split: Split, *, examples: int, queries: int) -> Reading:
    """Labelled texts of four topics, and texts to be labelled.

    The labels mean nothing by themselves: each reading gives its topics new ones, from the pairs
    (topic, label) of the split, so that only the examples tell them.
    """
    topics: dict[str, str] = {}
    while len(topics) < 4:
        topic = rng.choice(list(TOPIC))
        free = [lab for lab in objects_of(topic, "label", split) if lab not in topics.values()]
        if topic not in topics and free:
            topics[topic] = rng.choice(free)

    def draw(topic: str) -> Fact:
        return Fact(rng.choice(TOPIC[topic]), "label", topics[topic])

    shown = list(topics) * (examples // len(topics) + 1)
    shown = shown[: max(examples, len(topics))]
    rng.shuffle(shown)
    context = "\n\n".join(state(draw(topic), rng) for topic in shown)
    questions = tuple(ask(draw(rng.choice(list(topics))), rng) for _ in range(queries))
    return Reading(context, questions, tuple(sorted(topics.values())))


def pocket_rows(
    dataset: Dataset,
    split: Split,
    count: int,
    *,
    passages: int = 10,
    fillers: int = 2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows in LongBench's format: input, context, answers, length, dataset, language, ...

    Args:
        dataset: which kind of question.
        split: whose pairs of entities the contexts may state.
        count: number of rows, each with a context of its own.
        passages: passages a context (examples, for classification).
        fillers: filler sentences a passage.
        seed: another seed gives other rows of the same split.

    Returns:
        `count` rows; `length` counts words, as LongBench's does for English.

    Raises:
        ValueError: if the dataset is unknown, or the number of passages impossible.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset is {dataset!r}, but the pocket ones are {', '.join(DATASETS)}.")
    rows = []
    for index in range(count):
        rng = random.Random(f"{dataset} {split} {passages} {fillers} {seed} {index}")
        reading = _sample_reading(rng, dataset, split, passages, fillers)
        question = rng.choice([q for q in reading.questions if q.dataset == dataset])
        rows.append(
            {
                "input": question.text,
                "context": reading.context,
                "answers": [question.answer],
                "length": len(reading.context.split()),
                "dataset": dataset,
                "language": "en",
                "all_classes": list(reading.classes) or None,
                "_id": f"{dataset}-{split}-{passages}-{fillers}-{seed}-{index}",
            }
        )
    return rows


def _sample_reading(rng: random.Random, dataset: Dataset, split: Split, passages: int, fillers: int) -> Reading:
    if dataset == "pocket_classify":
        return read_examples(rng, split, examples=passages, queries=1)
    secrets = min(passages, 4) if dataset == "pocket_needle" else 0
    world = sample_world(rng, split, passages=passages, facts=len(PERSONAL), secrets=secrets)
    return read_world(world, rng, [fillers] * passages)


def texts() -> list[str]:
    """Text in which every word of a question or a prompt occurs."""
    questions = [question for relation in RELATIONS.values() for question in relation.questions]
    questions += [wording for wordings in _TWO_HOPS.values() for wording in wordings]
    roles = [relation.role for relation in RELATIONS.values()]
    return [*questions, *roles, *PROMPTS.values()]
