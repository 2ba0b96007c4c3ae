"""Rows are LongBench's, deterministic, answerable from their text, and apart from other splits."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from helpers import reader
from lm_eval_ape.pocket.questions import DATASETS, PROMPTS, pocket_rows, split_prompt
from lm_eval_ape.pocket.world import SPLITS, objects_of

_FIELDS = {
    "input": str,
    "context": str,
    "answers": list,
    "length": int,
    "dataset": str,
    "language": str,
    "all_classes": (list, type(None)),
    "_id": str,
}
_QA = ("pocket_onehop", "pocket_twohop", "pocket_needle")


@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_have_longbench_fields(dataset):
    for row in pocket_rows(dataset, "test", 5):
        assert row.keys() == _FIELDS.keys()
        assert all(isinstance(row[name], kind) for name, kind in _FIELDS.items())
        assert row["length"] == len(row["context"].split())


@pytest.mark.parametrize("dataset", DATASETS)
def test_same_seed_same_rows_other_seed_other_rows(dataset):
    rows = pocket_rows(dataset, "train", 5, seed=3)
    assert rows == pocket_rows(dataset, "train", 5, seed=3)
    assert rows[:2] == pocket_rows(dataset, "train", 2, seed=3)
    assert rows[0]["context"] != pocket_rows(dataset, "train", 5, seed=4)[0]["context"]


@pytest.mark.parametrize("dataset", _QA)
@pytest.mark.parametrize("split", SPLITS)
def test_the_context_supports_exactly_the_answer(dataset, split):
    for row in pocket_rows(dataset, split, 40, passages=12):
        assert reader.derive(row["input"], row["context"]) == row["answers"]


def test_two_hop_answers_need_two_passages_the_bridge_first():
    for row in pocket_rows("pocket_twohop", "test", 40):
        start = re.search(r"(?:director|founder) of (\w+)", row["input"])[1]
        order = [title for _, title, _ in reader.passages(row["context"])]
        (bridge,) = [o for s, r, o in reader.statements(row["context"]) if (s, r) == (start, "maker")]
        assert order.index(bridge) < order.index(start)
        assert bridge not in row["input"]


def test_examples_support_the_label():
    for row in pocket_rows("pocket_classify", "test", 40, passages=20):
        examples = re.findall(r"Text: (.+)\nLabel: (\w+)", row["context"])
        assert len(examples) == 20
        assert row["answers"][0] in row["all_classes"]
        assert {label for _, label in examples} == set(row["all_classes"])


@pytest.mark.parametrize("dataset", _QA)
def test_no_fact_is_stated_in_two_splits(dataset):
    stated = {
        split: {
            (subject, obj)
            for row in pocket_rows(dataset, split, 150, passages=20)
            for subject, _, obj in reader.statements(row["context"])
        }
        for split in SPLITS
    }
    assert all(len(pairs) > 500 for pairs in stated.values())
    assert not any(stated[one] & stated[other] for one, other in combinations(SPLITS, 2))


def test_no_topic_has_one_label_in_two_splits():
    for topic in ("animals", "food", "games"):
        labels = [set(objects_of(topic, "label", split)) for split in SPLITS]
        assert not any(one & other for one, other in combinations(labels, 2))


@pytest.mark.parametrize("passages", [2, 10, 40])
def test_contexts_have_the_passages_asked_for(passages):
    for row in pocket_rows("pocket_twohop", "test", 3, passages=passages):
        numbers = [number for number, _, _ in reader.passages(row["context"])]
        assert numbers == list(range(1, passages + 1))


def test_contexts_reach_from_hundreds_to_thousands_of_words():
    short = pocket_rows("pocket_onehop", "test", 3, passages=5, fillers=2)
    long = pocket_rows("pocket_onehop", "test", 3, passages=40, fillers=8)
    assert all(150 < row["length"] < 400 for row in short)
    assert all(row["length"] > 3000 for row in long)


@pytest.mark.parametrize("dataset", DATASETS)
def test_prompts_hold_the_context_once(dataset):
    (row,) = pocket_rows(dataset, "test", 1)
    assert PROMPTS[dataset].format(**row).count(row["context"]) == 1


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_prompt_is_its_context_and_its_question(dataset):
    context, question = split_prompt(dataset)
    assert context + question == PROMPTS[dataset]
    assert "{context}" in context
    assert question.startswith(("Question: {input}", "Text: {input}"))


@pytest.mark.parametrize("passages", [1, 61])
def test_impossible_numbers_of_passages_are_refused(passages):
    with pytest.raises(ValueError, match=f"passages is {passages}"):
        pocket_rows("pocket_onehop", "test", 1, passages=passages)


def test_an_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="'pocket_threehop'"):
        pocket_rows("pocket_threehop", "test", 1)
