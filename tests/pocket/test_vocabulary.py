"""The tokenizer knows every word of the world, and gives text back as it was."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from lm_eval_ape.pocket.questions import DATASETS, PROMPTS, pocket_rows
from pocket_training.vocabulary import BOS, UNK, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The tokenizer as a user gets it: written to a folder and loaded by AutoTokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _prompts(dataset):
    rows = pocket_rows(dataset, "test", 20, passages=20)
    return [PROMPTS[dataset].format(**row) for row in rows]


@pytest.mark.parametrize("dataset", DATASETS)
def test_prompts_round_trip(tokenizer, dataset):
    for prompt in _prompts(dataset):
        ids = tokenizer(prompt)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt
        assert tokenizer.convert_tokens_to_ids(UNK) not in ids


def test_offsets_point_at_the_words(tokenizer):
    prompt = _prompts("pocket_twohop")[0]
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens[0] == BOS
    for token, (start, end) in zip(tokens[1:], encoded["offset_mapping"][1:], strict=True):
        assert prompt[start:end] == token


def test_unknown_words_are_unk(tokenizer):
    assert tokenizer.tokenize("Where was Xyzzy born?")[2] == UNK


def test_vocabulary_is_the_same_every_time():
    assert build_tokenizer().get_vocab() == build_tokenizer().get_vocab()
