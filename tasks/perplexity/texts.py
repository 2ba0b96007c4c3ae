"""Long texts: books of the hub's PG-19, Python's own manual, or local files."""

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import text_of
from lm_eval_ape.tasks.hub import hub_rows
from lm_eval_ape.tasks.rows import read_jsonl_file

# The 100 books of PG-19's test split (Rae et al., ICLR 2020) in a form that needs no loading script.
HUB_DATASET = "emozilla/pg19-test"


class Text(NamedTuple):
    """A text and where it comes from.

    Attributes:
        place: File, line or row, as error messages name it.
        text: The text.
    """

    place: str
    text: str


def hub_texts() -> Iterator[Text]:
    """The books of PG-19's test split.

    Raises:
        ApeError: They cannot be loaded.
    """
    instead = (
        'name a .txt or .jsonl file, or a folder of such files: --metadata \'{"perplexity_path": "/data/books"}\'.'
    )
    for number, row in enumerate(hub_rows(HUB_DATASET, "test", instead=instead)):
        yield Text(f"{HUB_DATASET}, row {number}", row["text"])


def python_texts(characters: int) -> Iterator[Text]:
    """Python's own reference manual, as its interactive help shows it, in pieces of so many characters.

    What comes with every Python needs no data and no network; another version of Python has another manual.
    """
    whole = "\n\n".join(text for _, text in sorted(topics.items()))
    for first in range(0, len(whole), characters):
        yield Text(f"pydoc_data.topics, character {first}", whole[first : first + characters])


def local_texts(path: str) -> Iterator[Text]:
    """The texts of a file, or of all files of a folder in the order of their names.

    Args:
        path: A `.txt` file (one text), a `.jsonl` file (the field `text` of each line), or a folder of such files.

    Raises:
        ApeError: There is none, or one cannot be read.
    """
    place = Path(path).expanduser()
    kinds = (".txt", ".jsonl")
    files = sorted(file for file in place.iterdir() if file.suffix in kinds) if place.is_dir() else [place]
    if not files or not files[0].is_file() or files[0].suffix not in kinds:
        raise ApeError(
            f"perplexity_path={path} is no .txt or .jsonl file and no folder of such files: give the path of one."
        )
    for file in files:
        if file.suffix == ".jsonl":
            yield from (Text(row.place, row.text("text")) for row in read_jsonl_file(file))
            continue
        try:
            yield Text(str(file), text_of(file.read_bytes()).replace("\r\n", "\n"))
        except (OSError, ValueError) as error:
            raise ApeError(
                f"{file} cannot be read as text in UTF-8: {reason(error)}. Replace it, or take it out of the folder."
            ) from error
