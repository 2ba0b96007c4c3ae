"""LongBench's rows for the harness's `custom_dataset`: from the hub, or from a local folder."""

import logging
import zipfile
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.longbench.catalogue import DATASETS, LongBenchDataset
from lm_eval_ape.tasks.rows import Row, check_unique, read_jsonl, read_jsonl_file
from lm_eval_ape.tasks.splits import Part, part_rows

logger = logging.getLogger(__name__)

HUB_REPOSITORY = "zai-org/LongBench"
HUB_ARCHIVE = "data.zip"

FEATURES = Features(
    {
        "_id": Value("string"),
        "dataset": Value("string"),
        "row": Value("int64"),
        "context": Value("string"),
        "input": Value("string"),
        "answers": [Value("string")],
        "all_classes": [Value("string")],
        "length": Value("int64"),
        "language": Value("string"),
    }
)
"""The fields of a doc: the official ones, and `row`, the row's number in its file from 0."""

_OPTIONS_PREFIX = "longbench_"


def load_longbench(
    *,
    longbench_dataset: str,
    longbench_part: Part = "all",
    longbench_dir: str | None = None,
    **metadata: object,
) -> dict[str, Dataset]:
    """Loads one dataset of LongBench, or a part of it, as the split `test`.

    The harness calls it with the task's `dataset_kwargs` (the dataset and the part) and the
    run's metadata (`longbench_dir`, and much that other functions want).

    Args:
        longbench_dataset: Name of an official file without `.jsonl`, such as `2wikimqa` or, of
            LongBench-E, `2wikimqa_e`.
        longbench_part: `all` rows, the `calibration` rows or the `test` rows; see
            `lm_eval_ape.tasks.splits`.
        longbench_dir: Folder of the official `.jsonl` files; None for the official archive on
            the Hugging Face hub.
        **metadata: What else the harness knows; unused.

    Raises:
        ApeError: The folder, its file or the hub cannot be read, a row is malformed, two rows
            have the same id, the part needs more rows than there are, or `metadata` has an
            unknown option of LongBench's.
    """
    unknown = sorted(name for name in metadata if name.startswith(_OPTIONS_PREFIX))
    if unknown:
        raise ApeError(
            f"Unknown metadata {', '.join(unknown)}: the only option of the LongBench tasks is "
            "longbench_dir, the folder of the official .jsonl files."
        )
    dataset = DATASETS.get(longbench_dataset.removesuffix("_e"))
    expected = dataset and (dataset.rows_e if longbench_dataset.endswith("_e") else dataset.rows)
    if dataset is None or expected is None:
        raise ApeError(
            f"LongBench has no dataset {longbench_dataset!r}: it has {', '.join(DATASETS)}, and "
            f"with _e {', '.join(name for name in DATASETS if DATASETS[name].rows_e)}."
        )
    rows = _read(longbench_dataset, longbench_dir)
    source = rows[0].source
    if len(rows) != expected:
        logger.warning(
            "%s has %d rows, LongBench's %s has %d: scores do not compare with published ones.",
            source,
            len(rows),
            longbench_dataset,
            expected,
        )
    check_unique(rows, "_id")
    docs = [_doc(row, number, longbench_dataset, dataset) for number, row in enumerate(rows)]
    chosen = part_rows(len(docs), longbench_part, source=source)
    return {"test": Dataset.from_list([docs[number] for number in chosen], features=FEATURES)}


def _read(name: str, folder: object) -> list[Row]:
    if folder is None:
        return _read_hub(name)
    if not isinstance(folder, str) or not folder:
        raise ApeError(
            f"longbench_dir must be the path of a folder, but got {folder!r}: give it as in "
            '--metadata \'{"longbench_dir": "/data/longbench"}\'.'
        )
    return read_jsonl_file(Path(folder).expanduser() / f"{name}.jsonl")


def _read_hub(name: str) -> list[Row]:
    from huggingface_hub import hf_hub_download

    try:
        archive = hf_hub_download(HUB_REPOSITORY, HUB_ARCHIVE, repo_type="dataset")
    except (OSError, ValueError) as error:  # every error of the hub and of the network is one
        raise ApeError(
            f"{HUB_ARCHIVE} of {HUB_REPOSITORY} is not in the cache and could not be loaded from "
            f"the Hugging Face hub ({error}). On a machine without internet, unpack that archive "
            "and name the folder that then holds the .jsonl files: "
            '--metadata \'{"longbench_dir": "/data/longbench"}\'.'
        ) from error
    with zipfile.ZipFile(archive) as files, files.open(f"data/{name}.jsonl") as stream:
        return read_jsonl(stream, f"{HUB_REPOSITORY}/{name}.jsonl")


def _doc(row: Row, number: int, name: str, dataset: LongBenchDataset) -> dict[str, Any]:
    context = row.text("context", empty=False)
    if context.startswith(dataset.prompt.partition("{context}")[0]):
        raise ApeError(
            f"{row.place}: the context starts with the prompt's instruction, as in the copy "
            "Xnhyacinth/LongBench, whose prompts are already filled in. Use LongBench's official "
            f"files ({HUB_ARCHIVE} of {HUB_REPOSITORY}), or instructions would stand there twice."
        )
    return {
        "_id": row.text("_id") if "_id" in row.fields else f"{name}-{number}",
        "dataset": name,
        "row": number,
        "context": context,
        "input": row.text("input", "question"),
        "answers": row.texts("answers"),
        "all_classes": row.texts("all_classes") if dataset.metric == "classification" else [],
        "length": row.number("length"),
        "language": dataset.language,
    }
