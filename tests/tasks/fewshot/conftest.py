"""Small copies of the datasets, in the hub's form."""

import json

import pytest

TREC = {"abbreviation": 3, "description and abstract concepts": 30, "entities": 30, "human beings": 30}


@pytest.fixture(scope="session")
def fewshot_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as `fewshot_dir` names it; one test text of TREC stands in its train split too."""
    folder = tmp_path_factory.mktemp("fewshot")
    rows: dict[str, list[dict[str, object]]] = {"trec/train": [], "trec/test": []}
    for label, count in TREC.items():
        fields = {"label_text": f"a kind of {label}", "label_coarse_text": label}
        rows["trec/train"] += [{"text": f"What {label} is {n} ?", "label": 0, **fields} for n in range(count)]
        rows["trec/test"] += [{"text": f"Which {label} was\n {n} ?", "label": 0, **fields} for n in range(10)]
    rows["trec/test"].append(rows["trec/train"][40])
    rows["trec/test"].append(rows["trec/test"][0])
    for split in ("train", "test"):
        labels = [f"card_{word}" for word in "arrival lost stolen linking".split()]
        rows[f"banking77/{split}"] = [
            {"text": f"My {split} question {n} on {label}?", "label": place, "label_text": label}
            for place, label in enumerate(labels)
            for n in range(12)
        ]
    for name, content in rows.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(folder)
