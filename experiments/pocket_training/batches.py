"""The batches of a lesson."""

from __future__ import annotations

import random
from typing import Final

from transformers import PreTrainedTokenizerFast

from lm_eval_ape.pocket.questions import (
    Dataset,
    Question,
    Reading,
    ask,
    ask_chain,
    read_examples,
    read_world,
    split_prompt,
)
from lm_eval_ape.pocket.relations import PERSONAL, RELATIONS, Chain, Fact
from lm_eval_ape.pocket.world import World, sample_world
from pocket_training.curriculum import Lesson
from pocket_training.row import TRUNK, Batch, Row, collate
from pocket_training.statements import cut_question, cut_statement, draw_names
from pocket_training.vocabulary import split_words

_QUESTIONS: Final = 12


class BatchMaker:
    """Draws the batches of a lesson with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._vocabulary = tokenizer.get_vocab()
        self._bos = self._vocabulary[str(tokenizer.bos_token)]
        self._eos = self._vocabulary[str(tokenizer.eos_token)]
        self._pad = self._vocabulary[str(tokenizer.pad_token)]

    def draw(self, lesson: Lesson, rng: random.Random) -> Batch:
        """A batch of about `lesson.tokens` tokens; all its rows have the same passage count."""
        passages = lesson.draw_passages(rng)
        rows: list[Row] = []
        longest = 0
        while longest * (len(rows) + 1) <= lesson.tokens:
            if lesson.gap is None:
                rows.append(self._passages(lesson, passages, rng))
            elif lesson.chains:
                rows.append(self._chains(lesson, lesson.gap, rng))
            else:
                rows.append(self._pairs(lesson.gap, rng))
            longest = max(longest, len(rows[-1].ids))
        return collate(rows, self._pad)

    def _encode(self, text: str) -> list[int]:
        return [self._vocabulary[word] for word in split_words(text)]

    def _pairs(self, gap: int, rng: random.Random) -> Row:
        """Random pairs, stated once and asked for twice more, each time in a new order."""
        # The labels' sentences have no wording with few words behind the key.
        relations = [name for name in RELATIONS if name != "label" or gap >= 4]
        facts = [Fact(key, rng.choice(relations), value) for key, value in draw_names(rng, 12, 2)]
        row = Row()
        row.append([self._bos], 0, TRUNK)
        stated = {fact: cut_statement(fact, gap, rng) for fact in facts}
        for asked in (0, 1, 2):
            for fact in rng.sample(facts, len(facts)):
                text = stated[fact]
                if asked and rng.random() < 0.5:
                    text = cut_question(ask(fact, rng), fact.subject, gap, rng)
                value = self._vocabulary[fact.object]
                row.append([*self._encode(text), value], len(row.ids), 0)
                if asked:
                    row.aim(-2, value, "pair")
        return row

    def _chains(self, lesson: Lesson, gap: int, rng: random.Random) -> Row:
        """Random chains, stated fact by fact; each is asked for, and some of their facts."""
        chains = [
            Chain(
                Fact(start, rng.choice(("director", "founder")), bridge),
                Fact(bridge, rng.choice(PERSONAL), end),
            )
            for start, bridge, end in draw_names(rng, lesson.chains, 3)
        ]
        # As in a world's passages, a bridge is told of before it is referred to.
        slots = rng.sample(range(2 * len(chains)), 2 * len(chains))
        order: dict[int, Fact] = {}
        for chain, i, j in zip(chains, slots[::2], slots[1::2], strict=True):
            order[min(i, j)], order[max(i, j)] = chain.second, chain.first
        facts = [order[i] for i in sorted(order)]
        row = Row()
        row.append([self._bos], 0, TRUNK)
        place: dict[Fact, int] = {}
        for fact in facts:
            stated = f"{cut_statement(fact, gap, rng)} {fact.object}."
            row.append(self._encode(stated), len(row.ids), TRUNK)
            place[fact] = len(row.ids) - 2
        if lesson.joins:
            self._aim_joins(row, chains, place, rng)
        questions = [(ask(fact, rng), fact.subject) for fact in rng.sample(facts, len(chains))]
        if "pocket_twohop" in dict(lesson.shares):
            questions += [(ask_chain(chain, rng), chain.first.subject) for chain in chains]
        for question, key in questions:
            asked = self._encode(cut_question(question, key, gap, rng))
            row.ask(asked, self._vocabulary[question.answer], None, question.dataset)
        return row

    def _aim_joins(self, row: Row, chains: list[Chain], place: dict[Fact, int], rng: random.Random) -> None:
        """Where a bridge is referred to, name the other end: joining facts while reading."""
        for chain in rng.sample(chains, len(chains)):
            row.aim(place[chain.first], self._vocabulary[chain.second.object], "join")

    def _passages(self, lesson: Lesson, passages: int, rng: random.Random) -> Row:
        """A context in its prompt, with up to twelve questions as branches."""
        shares = dict(lesson.shares)
        world: World | None = None
        if rng.random() < shares.get("pocket_classify", 0.0):
            reading = read_examples(rng, "train", examples=rng.randint(4, 20), queries=6)
        else:
            secrets = rng.randint(1, 4) if "pocket_needle" in shares else 0
            world = sample_world(
                rng,
                "train",
                passages=passages,
                facts=lesson.facts,
                secrets=secrets,
            )
            most = rng.randint(*lesson.fillers)
            reading = read_world(world, rng, [rng.randint(0, most) for _ in range(passages)])
        trunk, stem = split_prompt(reading.questions[0].dataset)
        ids = [self._bos, *self._encode(trunk.format(context=reading.context))]
        row = Row()
        row.append(ids, 0, TRUNK)
        row.positions = self._stretch(ids, lesson.stretch, rng)
        if lesson.joins and world is not None:
            self._aim_joins(row, world.chains, self._find_objects(ids, world), rng)
        for question in _choose(reading, shares, rng):
            asked = self._encode(stem.format(input=question.text))
            row.ask(asked, self._vocabulary[question.answer], self._eos, question.dataset)
        return row

    def _heads(self, ids: list[int]) -> list[int]:
        return [i for i, token in enumerate(ids) if token == self._vocabulary["Passage"]]

    def _find_objects(self, ids: list[int], world: World) -> dict[Fact, int]:
        """The index of each fact's object in its passage."""
        return {
            fact: ids.index(self._vocabulary[fact.object], head)
            for head, page in zip(self._heads(ids), world.passages, strict=True)
            for fact in page
        }

    def _stretch(self, ids: list[int], most: int, rng: random.Random) -> list[int]:
        """0, 1, 2, ...; in half of the rows with skips in front of passages (PoSE)."""
        positions = list(range(len(ids)))
        heads = self._heads(ids)
        if not most or not heads or rng.random() < 0.5:
            return positions
        total = rng.randint(0, most)
        for head, skip in zip(heads, sorted(rng.randint(0, total) for _ in heads), strict=True):
            positions[head:] = range(head + skip, len(ids) + skip)
        return positions


def _choose(reading: Reading, shares: dict[Dataset, float], rng: random.Random) -> list[Question]:
    """Up to twelve questions, each kind as often as its share says."""
    asked = [question for question in reading.questions if question.dataset in shares]
    count: dict[Dataset, int] = {}
    for question in asked:
        count[question.dataset] = count.get(question.dataset, 0) + 1
    # Weighted sampling without replacement (Efraimidis and Spirakis, 2006): sort by u ** (1 / w).
    keyed = sorted(asked, key=lambda q: rng.random() ** (count[q.dataset] / shares[q.dataset]), reverse=True)
    return keyed[:_QUESTIONS]
