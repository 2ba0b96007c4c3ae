"""The pocket tasks through the harness."""

from __future__ import annotations

import pytest
from lm_eval.tasks import TaskManager

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks import TASKS_DIR
from lm_eval_ape.tasks.pocket.data import load_pocket
from lm_eval_ape.tasks.pocket.scoring import process_results

KINDS = ("onehop", "twohop", "needle", "classify")


def manager(**metadata: object) -> TaskManager:
    return TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)


def test_calibration_and_test_rows_make_up_the_whole_and_share_no_document() -> None:
    tasks = manager().load(["ape_pocket", "ape_pocket_calibration", "ape_pocket_test"])["tasks"]
    for kind in KINDS:
        whole, calibration, test = (
            [doc["_id"] for doc in tasks[f"ape_pocket_{kind}{part}"].test_docs()]
            for part in ("", "_calibration", "_test")
        )
        assert (len(calibration), len(test)) == (32, 168)
        assert whole == calibration + test
        assert len(set(whole)) == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_holds_its_context_once_and_its_answer_scores_one(kind: str) -> None:
    task = manager().load([f"ape_pocket_{kind}_test"])["tasks"][f"ape_pocket_{kind}_test"]
    for doc in list(task.test_docs())[:20]:
        assert task.doc_to_text(doc).count(doc["context"]) == 1
        assert task.process_results(doc, [f" {doc['answers'][0]}"]) == {
            "score": 1.0,
            "accuracy": 1.0,
            "sub_em": 1.0,
        }
        assert task.process_results(doc, ["something else"])["accuracy"] == 0.0


def test_passages_can_be_asked_for_through_the_harnesss_metadata() -> None:
    task = manager(pocket_passages=25).load(["ape_pocket_onehop_test"])["tasks"]["ape_pocket_onehop_test"]
    assert all(doc["context"].count("Passage ") >= 25 for doc in task.test_docs())


def test_the_score_is_the_official_f1() -> None:
    doc = {"answers": ["Porto"]}
    assert process_results(doc, ["in Porto"]) == {
        "score": pytest.approx(2 / 3),
        "accuracy": 0.0,
        "sub_em": 1.0,
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pocket_dataset": "pocket_onehop", "pocket_passage": 3}, "Did you mean 'pocket_passages'?"),
        ({"pocket_dataset": "pocket_threehop"}, "the pocket datasets are pocket_onehop"),
        ({"pocket_dataset": "pocket_onehop", "pocket_part": "train"}, "each with the parts all, calibration, test"),
        ({"pocket_dataset": "pocket_onehop", "pocket_passages": 0}, "pocket_passages=0"),
    ],
)
def test_impossible_options_are_refused_with_a_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ApeError) as error:
        load_pocket(**options)  # type: ignore[arg-type]
    assert sentence in str(error.value)
