"""Needles: where they stand, what is asked, what a response scores."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.needle.data import load_needle, prompt
from lm_eval_ape.tasks.scoring import find_answers


def rows(**options: Any) -> list[dict[str, Any]]:
    return list(load_needle(**{"needle_words": 300, **options})["test"])


def needles(row: dict[str, Any]) -> dict[str, str]:
    """Name -> number, as the text tells them."""
    sentences = row["context"].replace("\n\n", " ").split(". ")
    told = [sentence.split() for sentence in sentences if sentence.startswith("The room number of ")]
    return {words[4]: words[6].rstrip(".") for words in told}


def test_all_needles_stand_in_the_text_and_tell_the_answers() -> None:
    for row in rows(needle_count=2, needle_distractors=4):
        told = needles(row)
        assert len(told) == len(set(told.values())) == 6
        asked = [name for name in told if name in re.findall(r"\w+", row["question"])]
        assert {told[name] for name in asked} == set(row["answers"])
        assert len(asked) == 2


def test_the_filler_names_no_number_and_has_the_words_asked_for() -> None:
    for row in rows(needle_distractors=0):
        filler = row["context"].replace("\n\n", " ").split()
        assert 300 <= len(filler) - 7 < 320
        assert [word for word in filler if any(letter.isdigit() for letter in word)] == [f"{row['answers'][0]}."]


@pytest.mark.parametrize("depth", [0, 0.25, 1])
def test_a_needle_stands_at_the_depth_asked_for(depth: float) -> None:
    for row in rows(needle_depth=depth, needle_distractors=0, needle_rows=40):
        before = row["context"].index("The room number") / len(row["context"])
        assert before == pytest.approx(depth, abs=0.05)
        assert row["depths"][0] == pytest.approx(depth, abs=0.03)


def test_needles_of_one_depth_stand_in_the_order_of_the_question() -> None:
    (row, *_) = rows(needle_depth=0.5, needle_count=3, needle_distractors=0)
    assert list(needles(row).values()) == row["answers"]


def test_without_a_depth_needles_are_spread_over_the_text() -> None:
    depths = [row["depths"][0] for row in rows()]
    counts = [sum(low <= depth < low + 0.25 for depth in depths) for low in (0, 0.25, 0.5, 0.75)]
    assert min(counts) > 25


def test_parts_make_up_the_whole_and_share_no_text() -> None:
    whole, calibration, test = (rows(needle_part=part) for part in ("all", "calibration", "test"))
    assert (len(whole), len(calibration), len(test)) == (200, 32, 168)
    assert sorted(row["_id"] for row in [*calibration, *test]) == sorted(row["_id"] for row in whole)
    assert len({row["context"] for row in whole}) == 200


def test_rows_never_change() -> None:
    text = json.dumps(rows(needle_rows=5), sort_keys=True)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "7412f507d92d73caadacd2501bb1b05f04d968b2bf818f5554240df104fe84e4"
    )
    assert rows(needle_seed=1)[0]["context"] != rows()[0]["context"]


def test_haystacks_are_taken_from_a_local_text(tmp_path: Path) -> None:
    sentences = [f"Sentence {chr(97 + n % 26)}{chr(97 + n // 26)} has five words." for n in range(100)]
    (tmp_path / "a.txt").write_text("\n".join(sentences[:50]), encoding="utf-8")
    (tmp_path / "b.txt").write_text(" ".join(sentences[50:]), encoding="utf-8")
    found = rows(needle_haystack=str(tmp_path), needle_words=60, needle_distractors=0, needle_rows=50)
    starts = set()
    for row in found:
        told = [sentence for sentence in sentences if sentence in row["context"]]
        first = sentences.index(told[0])
        assert told == sentences[first : first + 12]
        starts.add(first)
    assert len(starts) > 10
    whole = rows(needle_haystack=str(tmp_path / "a.txt"), needle_words=250, needle_rows=2)
    assert all(sentence in row["context"] for row in whole for sentence in sentences[:50])
    with pytest.raises(ApeError, match="has 250 words, too few for a haystack of needle_words=251"):
        rows(needle_haystack=str(tmp_path / "a.txt"), needle_words=251)


def test_the_question_stands_after_the_text() -> None:
    (row, *_) = rows(needle_rows=1)
    assert prompt(row).count(row["context"]) == 1
    assert prompt(row).endswith(f"\n\nQuestion: {row['question']}\nAnswer:")


@pytest.mark.parametrize(
    ("response", "sub_em", "exact_match"),
    [("1234, 5678", 1.0, 1.0), ("5678 and 1234.", 1.0, 0.0), ("1234", 0.5, 0.0), ("none", 0.0, 0.0)],
)
def test_a_response_scores_the_share_of_what_was_asked(response: str, sub_em: float, exact_match: float) -> None:
    assert find_answers({"answers": ["1234", "5678"]}, [response]) == {"sub_em": sub_em, "exact_match": exact_match}
