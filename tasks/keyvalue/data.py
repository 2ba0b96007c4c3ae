"""The rows of key-value retrieval: a JSON object of random keys and values, one pair a line, and a key to look up.

Liu et al., Lost in the Middle: How Language Models Use Long Contexts (TACL 2024), section 3: keys and values are random
UUIDs, so only the context has the answer. The prompt is theirs, word for word, so that results compare
(`kv_retrieval.prompt` in https://github.com/nelson-liu/lost-in-the-middle, MIT license).
"""

from typing import Any

from datasets import Dataset

from lm_eval_ape.tasks.draws import Draws
from lm_eval_ape.tasks.options import refuse_unknown, whole_number
from lm_eval_ape.tasks.splits import Part, part_rows

OPTIONS = ("keyvalue_pairs", "keyvalue_position", "keyvalue_rows", "keyvalue_seed")
PROMPT = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\n"
    "JSON data:\n"
    "{context}\n\n"
    'Key: "{key}"\n'
    "Corresponding value:"
)


def load_keyvalue(
    *,
    keyvalue_part: Part = "all",
    keyvalue_pairs: int = 140,
    keyvalue_position: int | None = None,
    keyvalue_rows: int = 200,
    keyvalue_seed: int = 0,
    **metadata: object,
) -> dict[str, Dataset]:
    """Generate the rows, or a part of them, as the split `test`; the same ones every time.

    Args:
        keyvalue_part: `calibration` (32 rows), `test` (the others) or `all`; see `lm_eval_ape.tasks.splits`.
        keyvalue_pairs: Pairs of an object: 75, 140 and 300 in the paper (about 4, 8 and 16 thousand tokens).
        keyvalue_position: Line of the pair that is asked for, from 0; None for another random one in every row.
        keyvalue_rows: Rows of both parts together.
        keyvalue_seed: Another number gives other rows.
        **metadata: What else the harness knows; unused.

    Raises:
        ApeError: An option is unknown or impossible.
    """
    refuse_unknown(metadata, "keyvalue_", OPTIONS)
    pairs = whole_number("keyvalue_pairs", keyvalue_pairs, 2)
    rows = whole_number("keyvalue_rows", keyvalue_rows, 1)
    seed = whole_number("keyvalue_seed", keyvalue_seed, 0)
    position = keyvalue_position
    if position is not None:
        position = whole_number("keyvalue_position", position, 0, pairs - 1)
    chosen = part_rows(rows, keyvalue_part, source=f"keyvalue_rows={rows}")
    return {"test": Dataset.from_list([_row(number, pairs, position, seed) for number in chosen])}


def prompt(doc: dict[str, Any]) -> str:
    """The paper's prompt for one row."""
    return PROMPT.format(context=doc["context"], key=doc["key"])


def _row(number: int, pairs: int, position: int | None, seed: int) -> dict[str, Any]:
    draws = Draws(f"keyvalue {seed} {pairs} {number}")
    drawn = draws.number(pairs)
    items = [(draws.identifier(), draws.identifier()) for _ in range(pairs)]
    place = drawn if position is None else position
    key, value = items[place]
    # One pair a line, the second and later ones indented by one space, as in the paper's data.
    lines = ",\n ".join(f'"{one}": "{other}"' for one, other in items)
    return {
        "_id": f"keyvalue-{seed}-{pairs}-{number}",
        "context": f"{{{lines}}}",
        "key": key,
        "answers": [value],
        "position": place,
        "pairs": pairs,
    }
