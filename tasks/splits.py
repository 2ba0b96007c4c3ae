"""One fixed split of a dataset's rows: some to calibrate on, the others to test on."""

import random
from typing import Literal, get_args

from lm_eval_ape.errors import ApeError

Part = Literal["all", "calibration", "test"]

CALIBRATION_ROWS = 32
SEED = 1234


def part_rows(rows: int, part: Part, *, source: str) -> list[int]:
    """Returns the row numbers of a part, ascending, from 0.

    Each row draws a number in row order from Python's generator, seeded with `SEED`; the
    `CALIBRATION_ROWS` rows with the smallest numbers are the calibration part and all others the
    test part. Python guarantees this sequence for every version and machine, so the split
    depends on the number of rows and on nothing else.

    Args:
        rows: Number of rows of the whole dataset.
        part: `all`, `calibration` or `test`.
        source: Where the rows came from, as error messages name it.

    Raises:
        ApeError: `part` is unknown, or the dataset is too small to be split.
    """
    if part not in get_args(Part):
        raise ApeError(f"The part must be one of {', '.join(get_args(Part))}, but got {part!r}.")
    if part == "all":
        return list(range(rows))
    if rows <= CALIBRATION_ROWS:
        raise ApeError(
            f"{source} has {rows} rows, but its {part} part needs more than {CALIBRATION_ROWS}: "
            f"{CALIBRATION_ROWS} are for calibration and the rest for test. Give the complete "
            f"file, or take the task without _{part}, which has all rows."
        )
    generator = random.Random(SEED)
    draws = [generator.random() for _ in range(rows)]
    calibration = set(sorted(range(rows), key=draws.__getitem__)[:CALIBRATION_ROWS])
    return [row for row in range(rows) if (row in calibration) == (part == "calibration")]
