"""Choices that never change: these values were drawn once and stand here."""

import random
import uuid

from lm_eval_ape.tasks.draws import Draws


def test_the_choices_of_a_seed_are_those_of_the_generator_that_python_guarantees() -> None:
    generator = random.Random("a seed")
    expected = [generator.random() for _ in range(8)]
    draws = Draws("a seed")
    assert [draws.number(1000) for _ in range(4)] == [int(number * 1000) for number in expected[:4]]
    assert draws.order(4) == sorted(range(4), key=lambda place: expected[4 + place])


def test_the_first_choices_of_a_seed_never_change() -> None:
    draws = Draws("never changes")
    assert [draws.number(100) for _ in range(5)] == [9, 95, 93, 95, 34]
    assert draws.shuffled("abcdef") == list("cefabd")
    assert draws.identifier() == "5ac2a8bb-3cf0-48e5-ad74-ebc7b8d6eb7b"


def test_an_order_has_each_number_once_and_differs_by_seed() -> None:
    orders = {tuple(Draws(str(seed)).order(10)) for seed in range(50)}
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(orders) == 50


def test_identifiers_are_uuids_of_version_4_and_differ() -> None:
    draws = Draws("x")
    found = {draws.identifier() for _ in range(1000)}
    assert len(found) == 1000
    assert {uuid.UUID(text).version for text in found} == {4}
    assert all(str(uuid.UUID(text)) == text for text in found)
