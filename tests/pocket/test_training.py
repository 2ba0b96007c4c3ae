"""Training is resumed exactly, and stops short of nothing silently."""

from __future__ import annotations

import json

import pytest
import torch

from lm_eval_ape.errors import ApeError
from pocket_training.batches import BatchMaker
from pocket_training.curriculum import CURRICULUM, Lesson
from pocket_training.model import new_model, stack_layers
from pocket_training.row import KINDS
from pocket_training.train import LOG_NAME, train
from pocket_training.vocabulary import build_tokenizer

_TWO = (("pocket_onehop", 0.5), ("pocket_twohop", 0.5))
# Three steps: the first lesson's two, then one with more layers, on passages.
_CURRICULUM = (
    Lesson("pairs", 1, gap=2, steps=2, tokens=400),
    Lesson("passages", 2, shares=_TWO, joins=True, steps=1, tokens=400, stretch=100),
)


@pytest.fixture(autouse=True)
def _no_evaluation(monkeypatch):
    monkeypatch.setattr("pocket_training.card.score_by_passages", lambda *_, **__: {"pocket_onehop": {10: 1.0}})
    monkeypatch.setattr("pocket_training.card.score_rows", lambda *_: 1.0)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_training_gives_the_weights_of_an_uninterrupted_one(tmp_path, stop):
    whole = train(tmp_path / "whole", seed=1, curriculum=_CURRICULUM)
    train(tmp_path / "parts", seed=1, curriculum=_CURRICULUM, stop_after=stop)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    resumed = train(tmp_path / "parts", seed=1, curriculum=_CURRICULUM)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    steps = [json.loads(line) for line in (tmp_path / "parts" / LOG_NAME).read_text().splitlines()]
    assert [line["total_steps"] for line in steps] == [2, 3]


def test_a_state_of_another_seed_is_refused(tmp_path):
    train(tmp_path, seed=1, curriculum=_CURRICULUM, stop_after=1)
    with pytest.raises(ApeError, match="of a training with another seed than 2"):
        train(tmp_path, seed=2, curriculum=_CURRICULUM)


def test_stacked_layers_repeat_the_ones_below():
    model = new_model(build_tokenizer(), 2)
    stacked = stack_layers(model, 4)
    state = stacked.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, state[name])
        above = name.replace("layers.0.", "layers.2.").replace("layers.1.", "layers.3.")
        assert torch.equal(weight, state[above])


@pytest.mark.parametrize("lesson", CURRICULUM, ids=lambda lesson: lesson.name)
def test_questions_see_their_context_and_no_other_question(lesson, draw):
    batch = draw(lesson)
    visible = batch.mask[:, 0]
    assert not visible.triu(1).any()
    assert visible.diagonal(dim1=1, dim2=2).all()
    rows, places = torch.where(batch.kind >= len(KINDS) - 4)
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        seen = batch.positions[row, visible[row, place]]
        assert (seen.diff() > 0).all()


@pytest.mark.parametrize("lesson", CURRICULUM, ids=lambda lesson: lesson.name)
def test_batches_keep_to_their_size_and_aim_at_words(lesson, draw):
    batch = draw(lesson)
    longest = batch.ids.shape[1]
    assert batch.ids.numel() < lesson.tokens + 2 * longest
    assert ((batch.target >= 0) == (batch.kind >= 0)).all()
    assert (batch.kind >= 0).any(dim=1).all()


@pytest.fixture
def draw():
    """Draws the first batch of a lesson."""
    import random

    maker = BatchMaker(build_tokenizer())
    return lambda lesson: maker.draw(lesson, random.Random(0))
