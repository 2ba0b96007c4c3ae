"""A complete small LongBench, in the official format, made for the tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.tasks.longbench.catalogue import DATASETS, Metric

ROWS = 40
CLASSES = ["City", "State", "Other location"]
ANSWERS: dict[Metric, str] = {
    "qa_f1": "answer {row}",
    "qa_f1_zh": "厦门大学",
    "rouge_l": "They agreed on plan {row}.",
    "rouge_l_zh": "会议讨论了教育改革",
    "classification": "State",
    "retrieval": "Paragraph {row}",
    "retrieval_zh": "段落{row}",
    "count": "{row}",
    "code_similarity": "    return value_{row}",
}


def make_row(name: str, row: int) -> dict[str, Any]:
    """A row as the official files have it, with lengths in all three groups of LongBench-E."""
    dataset = DATASETS[name.removesuffix("_e")]
    return {
        "input": f"What is {row}? {{{{ not_a_variable }}}}",
        "context": f"Passage 1:\nFact {row} of {name}: 100%, {{x}}, {{{{ y }}}}, \\n\r\n段落。\n",
        "answers": ["something else", ANSWERS[dataset.metric].format(row=row)]
        if not dataset.metric.startswith("retrieval")
        else [ANSWERS[dataset.metric].format(row=row)],
        "length": 3000 * (row % 4),
        "dataset": name,
        "language": dataset.language,
        "all_classes": CLASSES if dataset.metric == "classification" else None,
        "_id": f"{name}-id-{row}",
    }


@pytest.fixture
def official_row() -> Callable[[str, int], dict[str, Any]]:
    """Makes the row of a file by the file's name and the row's number."""
    return make_row


@pytest.fixture(scope="session")
def small_longbench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with all 34 files, 40 rows each."""
    folder = tmp_path_factory.mktemp("longbench")
    names = [*DATASETS, *(f"{name}_e" for name in DATASETS if DATASETS[name].rows_e)]
    for name in names:
        rows = (json.dumps(make_row(name, row)) for row in range(ROWS))
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
