"""The shipped checkpoint loads by the ordinary classes, is the card's, and answers."""

from __future__ import annotations

import hashlib

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_ape.checkpoints.names import model_name
from lm_eval_ape.errors import ApeError
from lm_eval_ape.pocket import POCKET, pocket_path
from lm_eval_ape.pocket.questions import pocket_rows
from pocket_training.evaluate import score_rows
from pocket_training.vocabulary import build_tokenizer


@pytest.fixture(scope="module")
def checkpoint():
    """The shipped model and tokenizer."""
    folder = pocket_path()
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_it_is_small_and_has_the_hash_of_its_card():
    folder = pocket_path()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert f"sha256 `{digest}`" in (folder / "README.md").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8 * 2**20


def test_it_is_a_llama_with_the_generators_vocabulary(checkpoint):
    model, tokenizer = checkpoint
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings >= 8192
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()


@pytest.mark.parametrize(
    ("dataset", "least"),
    [
        ("pocket_onehop", 0.90),
        ("pocket_twohop", 0.80),
        ("pocket_needle", 0.90),
        ("pocket_classify", 0.80),
    ],
)
def test_it_answers_test_rows_with_ten_passages(checkpoint, dataset, least):
    assert score_rows(*checkpoint, pocket_rows(dataset, "test", 40, passages=10)) >= least


def test_a_missing_checkpoint_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr("lm_eval_ape.pocket._FOLDER", tmp_path)
    with pytest.raises(ApeError, match=r"experiments/train_pocket\.py"):
        pocket_path()


def test_the_shipped_model_has_one_name_wherever_it_lies(tmp_path):
    assert model_name(str(pocket_path())) == POCKET
    assert model_name(POCKET) == POCKET
    assert model_name(str(tmp_path)) == str(tmp_path.resolve())
    assert model_name("organisation/model") == "organisation/model"
