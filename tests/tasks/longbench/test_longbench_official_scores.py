"""On a known model's predictions, the official scorer's published figures come out."""

import json
import re
import string
from pathlib import Path

import pytest

from lm_eval_ape.tasks.longbench import metrics
from lm_eval_ape.tasks.longbench.catalogue import DATASETS
from lm_eval_ape.tasks.longbench.scoring import official_prediction, official_score


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_the_official_figure_comes_out_to_two_decimals(name: str, longbench_preds: Path) -> None:
    dataset = DATASETS[name]
    with (longbench_preds / f"{name}.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == dataset.rows
    scores = [
        official_score(official_prediction(row["pred"], dataset), row["answers"], row["all_classes"], dataset)
        for row in rows
    ]
    figures = json.loads((longbench_preds / "result.json").read_text(encoding="utf-8"))
    assert round(100 * sum(scores) / len(scores), 2) == figures[name]


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.metric == "qa_f1"])
def test_substring_exact_match_is_containment_of_squads_normal_forms(name: str, longbench_preds: Path) -> None:
    def normal(text: str) -> str:
        kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())

    with (longbench_preds / f"{name}.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pairs = [(row["pred"], answer) for row in rows for answer in row["answers"]]
    found = [metrics.sub_em(prediction, answer) for prediction, answer in pairs]
    assert found == [float(normal(answer) in normal(prediction)) for prediction, answer in pairs]
    assert 0 < sum(found) < len(found)
