"""Key-value retrieval: rows, prompts and scores."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from lm_eval_ape.prompts.chunking import cut_text
from lm_eval_ape.tasks import TASKS_DIR
from lm_eval_ape.tasks.keyvalue.data import load_keyvalue, prompt
from lm_eval_ape.tasks.scoring import find_answers


def rows(**options: Any) -> list[dict[str, Any]]:
    return list(load_keyvalue(**{"keyvalue_pairs": 20, **options})["test"])


def test_the_context_is_a_json_object_that_holds_the_answer_at_its_place() -> None:
    for row in rows():
        pairs = json.loads(row["context"])
        assert len(pairs) == len(set(pairs.values())) == 20
        assert pairs[row["key"]] == row["answers"][0]
        assert list(pairs).index(row["key"]) == row["position"]


def test_each_line_is_one_pair_and_a_chunk_of_its_own() -> None:
    (row, *_) = rows(keyvalue_pairs=3)
    starts = [0, *cut_text(row["context"], "separator", "\n"), len(row["context"])]
    lines = [row["context"][a:b].strip(" {},\n") for a, b in pairwise(starts)]
    assert {key: value for line in lines for key, value in json.loads(f"{{{line}}}").items()} == json.loads(
        row["context"]
    )
    assert len(lines) == 3


def test_the_place_is_the_one_asked_for_or_spread_over_the_object() -> None:
    assert {row["position"] for row in rows(keyvalue_position=7)} == {7}
    drawn = [row["position"] for row in rows()]
    assert set(drawn) == set(range(20))
    # The same pairs wherever the one is that is asked for.
    assert rows(keyvalue_position=7)[3]["context"] == rows()[3]["context"]


def test_parts_make_up_the_whole_and_share_no_identifier() -> None:
    whole, calibration, test = (rows(keyvalue_part=part) for part in ("all", "calibration", "test"))
    assert (len(whole), len(calibration), len(test)) == (200, 32, 168)
    assert sorted(row["_id"] for row in [*calibration, *test]) == sorted(row["_id"] for row in whole)
    keys = [set(json.loads(row["context"])) for row in whole]
    assert len(set().union(*keys)) == 200 * 20


def test_rows_never_change() -> None:
    text = json.dumps(rows(keyvalue_rows=5), sort_keys=True)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "5c2a66c9724bb32d9dce558a0b2f96987ac3513b78f0400dc5083626d88974b7"
    )
    assert rows(keyvalue_seed=1)[0]["key"] != rows()[0]["key"]


def test_the_prompt_is_the_papers() -> None:
    assert prompt({"context": '{"a": "b"}', "key": "a"}) == (
        "Extract the value corresponding to the specified key in the JSON object below.\n\n"
        'JSON data:\n{"a": "b"}\n\nKey: "a"\nCorresponding value:'
    )


@pytest.mark.parametrize(
    ("response", "sub_em", "exact_match"),
    [
        (' "25f1a78d-a2f6-4c7d-8bd6-51226b263cbe"', 1.0, 1.0),
        (" 25F1A78D-A2F6-4C7D-8BD6-51226B263CBE", 1.0, 0.0),
        ("The value is 25f1a78d-a2f6-4c7d-8bd6-51226b263cbe.", 1.0, 0.0),
        (" 25f1a78d-a2f6-4c7d-8bd6-51226b263cb", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_a_response_is_scored(response: str, sub_em: float, exact_match: float) -> None:
    doc = {"answers": ["25f1a78d-a2f6-4c7d-8bd6-51226b263cbe"]}
    assert find_answers(doc, [response]) == {"sub_em": sub_em, "exact_match": exact_match}


def test_the_harness_gives_its_metadata_to_the_task() -> None:
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata={"keyvalue_pairs": 4})
    task = manager.load("ape_keyvalue_test")["tasks"]["ape_keyvalue_test"]
    assert len(task.eval_docs) == 168
    assert len(json.loads(task.eval_docs[0]["context"])) == 4
    assert task.doc_to_text(task.eval_docs[0]) == prompt(task.eval_docs[0])
