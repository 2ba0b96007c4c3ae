"""Few-shot classification: which demonstrations a row has, and what a response scores."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.chunking import cut_text
from lm_eval_ape.tasks import TASKS_DIR
from lm_eval_ape.tasks.draws import Draws
from lm_eval_ape.tasks.fewshot.data import Example, demonstrations, load_fewshot, prompt
from lm_eval_ape.tasks.fewshot.scoring import process_results


def rows(folder: str, dataset: str = "trec", **options: Any) -> list[dict[str, Any]]:
    return list(
        load_fewshot(fewshot_dataset=dataset, fewshot_dir=folder, **{"fewshot_examples": 16, **options})["test"]
    )


def shown(row: dict[str, Any]) -> list[tuple[str, str]]:
    items = [item.split("\n") for item in row["context"].split("\n\n")]
    assert all(text.startswith("Text: ") and label.startswith("Label: ") for text, label in items)
    return [(text.removeprefix("Text: "), label.removeprefix("Label: ")) for text, label in items]


@pytest.mark.parametrize("dataset", ["trec", "trec_fine", "banking77"])
def test_demonstrations_are_balanced_and_never_the_row_itself(dataset: str, fewshot_dir: str) -> None:
    for row in rows(fewshot_dir, dataset):
        items = shown(row)
        assert len(set(items)) == 16
        assert row["input"] not in {text for text, _ in items}
        assert "\n" not in row["input"]
        counts = Counter(label for _, label in items)
        # TREC's abbreviations are 3 in all: the other labels fill up.
        assert sorted(counts.values()) == ([4, 4, 4, 4] if dataset == "banking77" else [3, 4, 4, 5])
        assert row["answers"][0] in counts
        assert "_" not in row["answers"][0]


def test_a_text_that_is_in_both_splits_is_not_its_own_demonstration(fewshot_dir: str) -> None:
    query = "What entities is 7 ?"
    (row,) = (row for row in rows(fewshot_dir, fewshot_examples=90) if row["input"] == query)
    assert query not in {text for text, _ in shown(row)}
    others = [row for row in rows(fewshot_dir, fewshot_examples=92) if row["input"] != query]
    assert sum(query in {text for text, _ in shown(row)} for row in others) > 20


def test_demonstrations_come_in_random_order_and_differ_by_row(fewshot_dir: str) -> None:
    found = [shown(row) for row in rows(fewshot_dir)]
    assert len({tuple(items) for items in found}) == len(found)
    assert len({tuple(label for _, label in items) for items in found}) == len(found)
    assert [row["context"] for row in rows(fewshot_dir)] == [row["context"] for row in rows(fewshot_dir)]
    assert rows(fewshot_dir, fewshot_seed=1)[0]["context"] != rows(fewshot_dir)[0]["context"]


def test_more_of_every_label_come_before_the_first_has_two_more() -> None:
    classes = {
        name: [Example(f"{name}{n}", name) for n in range(size)] for name, size in (("a", 9), ("b", 9), ("c", 1))
    }
    for count in range(1, 19):
        counts = Counter(one.label for one in demonstrations(classes, count, "q", Draws(str(count))))
        assert counts.total() == count
        assert abs(counts["a"] - counts["b"]) <= 1
        assert counts["c"] <= 1
        assert count < 3 or counts["c"] == 1


def test_parts_make_up_the_whole_and_share_no_text(fewshot_dir: str) -> None:
    whole, calibration, test = (rows(fewshot_dir, fewshot_part=part) for part in ("all", "calibration", "test"))
    # 40 test texts and the one of the train split; the repeated text counts once.
    assert (len(whole), len(calibration), len(test)) == (41, 32, 9)
    texts = [{row["input"] for row in part} for part in (calibration, test)]
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] == {row["input"] for row in whole}


def test_rows_are_mixed_so_that_a_limit_keeps_all_labels(fewshot_dir: str) -> None:
    assert len({row["answers"][0] for row in rows(fewshot_dir, "banking77", fewshot_rows=12)}) == 4


def test_items_can_be_cut_at_the_default_separator(fewshot_dir: str) -> None:
    (row, *_) = rows(fewshot_dir)
    assert len(cut_text(row["context"], "separator", "\n\n")) == 15
    assert prompt(row).count(row["context"]) == 1
    assert prompt(row).endswith(f"\n\nText: {row['input']}\nLabel:")


def test_labels_are_named_before_the_examples_where_that_is_asked_for(fewshot_dir: str) -> None:
    plain, named = (rows(fewshot_dir, "banking77", fewshot_name_labels=named)[0] for named in (False, True))
    sentence = f" The labels are {', '.join(plain['labels'])}."
    assert prompt(named).replace(sentence, "") == prompt(plain)
    assert prompt(named).index(sentence) < prompt(named).index(named["context"])


def test_too_few_texts_are_an_error(fewshot_dir: str) -> None:
    with pytest.raises(ApeError, match="has 93 different texts, too few for fewshot_examples=93"):
        rows(fewshot_dir, fewshot_examples=93)


def test_a_row_names_the_labels_that_its_demonstrations_show(fewshot_dir: str) -> None:
    for row in rows(fewshot_dir, "trec_fine", fewshot_examples=6):
        assert row["labels"] == sorted({label for _, label in shown(row)})


@pytest.mark.parametrize(
    ("response", "accuracy", "shown_label"),
    [
        (" human beings", 1.0, 1.0),
        (" Human  beings.\n\nText: more", 1.0, 1.0),
        ("\nhuman beings\nand", 1.0, 1.0),
        (" Entities.", 0.0, 1.0),
        (" human", 0.0, 0.0),
        (" human beings and entities", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_a_response_is_scored_by_its_first_line(response: str, accuracy: float, shown_label: float) -> None:
    doc = {"answers": ["human beings"], "labels": ["entities", "human beings"]}
    assert process_results(doc, [response]) == {"accuracy": accuracy, "shown_label": shown_label}


def test_all_tasks_load_through_the_harness(fewshot_dir: str) -> None:
    metadata = {"fewshot_dir": fewshot_dir, "fewshot_examples": 8}
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
    tasks = manager.load(["ape_fewshot", "ape_fewshot_calibration", "ape_fewshot_test"])["tasks"]
    assert {name: len(task.eval_docs) for name, task in tasks.items()} == {
        f"ape_fewshot_{name}{part}": {"": whole, "_calibration": 32, "_test": whole - 32}[part]
        for name, whole in (("trec", 41), ("trec_fine", 41), ("banking77", 48))
        for part in ("", "_calibration", "_test")
    }
