"""Golden cases of the scores, worked out by hand from LongBench's definitions."""

from __future__ import annotations

import pytest

from pocket_training.scores import accuracy, qa_f1


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Paris", ["Paris"], 1.0),
        ("paris.", ["Paris"], 1.0),
        ("The Paris", ["Paris"], 1.0),
        ("Paris Rome", ["Paris"], 2 / 3),
        ("Rome", ["Paris"], 0.0),
        ("", ["Paris"], 0.0),
        ("Rome", ["Paris", "Rome"], 1.0),
    ],
)
def test_f1(prediction, answers, expected):
    assert qa_f1(prediction, answers) == pytest.approx(expected)


@pytest.mark.parametrize(("prediction", "expected"), [("tau", 1.0), ("tau or phi", 0.5), ("phi", 0.0), ("", 0.0)])
def test_accuracy(prediction, expected):
    assert accuracy(prediction, ["tau"], ["tau", "phi"]) == expected


def test_a_class_inside_the_answers_name_is_no_other_answer():
    assert accuracy("zeta beta", ["zeta"], ["zeta", "eta"]) == 1.0
