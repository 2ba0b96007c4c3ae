"""The pocket tasks' rows for the harness's `custom_dataset`, and their prompts."""

from typing import Any, get_args

from datasets import Dataset as Rows

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.pocket.questions import DATASETS, PROMPTS, Dataset, pocket_rows
from lm_eval_ape.tasks.splits import CALIBRATION_ROWS, Part

# As many as LongBench's 2WikiMultihopQA has for test beside the calibration rows.
TEST_ROWS = 168
_OPTIONS = ("pocket_dataset", "pocket_part", "pocket_passages", "pocket_fillers", "pocket_calibration_rows")


def load_pocket(
    *,
    pocket_dataset: Dataset,
    pocket_part: Part = "all",
    pocket_passages: int = 10,
    pocket_fillers: int = 2,
    pocket_calibration_rows: int = CALIBRATION_ROWS,
    **metadata: object,
) -> dict[str, Rows]:
    """Generates one dataset, or a part of it, as the split `test`; the same rows every time.

    Args:
        pocket_dataset: Kind of question, one of `pocket.questions.DATASETS`.
        pocket_part: `calibration`, `test` (168 rows) or `all`; calibration and test rows share no combination of
            entities.
        pocket_passages: Passages of a context (for classification: labelled examples).
        pocket_fillers: Sentences of a passage beside its facts.
        pocket_calibration_rows: Rows of the calibration part; more of them begin with the same ones.
        **metadata: What else the harness knows; unused.

    Raises:
        ApeError: An option is unknown or impossible.
    """
    unknown = sorted(name for name in metadata if name.startswith("pocket_"))
    if unknown:
        raise ApeError(
            f"Unknown metadata {unknown[0]!r}.{nearest(unknown[0], _OPTIONS)} The pocket tasks' options are "
            "pocket_passages, pocket_fillers and pocket_calibration_rows."
        )
    if pocket_dataset not in DATASETS or pocket_part not in get_args(Part):
        raise ApeError(
            f"There is no part {pocket_part!r} of {pocket_dataset!r}: the pocket datasets are {', '.join(DATASETS)}, "
            f"each with the parts {', '.join(get_args(Part))}."
        )
    counts = {"calibration": pocket_calibration_rows, "test": TEST_ROWS}
    try:
        rows = [
            row
            for split in ("calibration", "test")
            if pocket_part in ("all", split)
            for row in pocket_rows(
                pocket_dataset, split, counts[split], passages=pocket_passages, fillers=pocket_fillers
            )
        ]
    except ValueError as error:
        raise ApeError(f"pocket_passages={pocket_passages}, pocket_fillers={pocket_fillers}: {error}") from error
    return {"test": Rows.from_list(rows)}


def prompt(doc: dict[str, Any]) -> str:
    """The prompt that the shipped model was trained on, for one row."""
    return PROMPTS[doc["dataset"]].format(context=doc["context"], input=doc["input"])
