"""The split is fixed, complete and without overlap; too small a dataset is an error."""

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.splits import CALIBRATION_ROWS, Part, part_rows

# fmt: off
CALIBRATION_ROWS_OF_200 = [
    2, 7, 10, 17, 18, 21, 25, 36, 38, 39, 42, 50, 52, 60, 74, 77,
    95, 97, 99, 101, 106, 108, 129, 133, 135, 154, 159, 164, 170, 189, 192, 193,
]
# fmt: on


@pytest.mark.parametrize("rows", [33, 60, 150, 200, 224, 294, 300, 500])
def test_the_parts_are_complete_and_do_not_overlap(rows: int) -> None:
    calibration = part_rows(rows, "calibration", source="x")
    test = part_rows(rows, "test", source="x")
    assert len(calibration) == CALIBRATION_ROWS
    assert sorted(calibration + test) == part_rows(rows, "all", source="x") == list(range(rows))


def test_the_calibration_rows_of_200_never_change() -> None:
    assert part_rows(200, "calibration", source="x") == CALIBRATION_ROWS_OF_200


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_a_dataset_of_32_rows_cannot_be_split(part: Part) -> None:
    with pytest.raises(ApeError, match=f"some.jsonl has 32 rows, but its {part} part needs more"):
        part_rows(32, part, source="some.jsonl")


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(ApeError, match="one of all, calibration, test, but got 'train'"):
        part_rows(200, "train", source="x")  # type: ignore[arg-type]
