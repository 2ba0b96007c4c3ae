"""The rows of few-shot classification: many labelled texts as the context, and a text to label.

TREC (Li & Roth, COLING 2002) and BANKING77 (Casanueva et al., 2020), with as many demonstrations as fill a long
context, as Ratner et al. (ACL 2023) and Zhang et al. (2024) evaluate parallel encoding. The prompt's wording is our
own. The label is generated and must match exactly: a score for each of 77 labels would read the query 77 times.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.draws import Draws
from lm_eval_ape.tasks.hub import hub_rows
from lm_eval_ape.tasks.options import path_text, refuse_unknown, switch, whole_number
from lm_eval_ape.tasks.rows import Row, read_jsonl_file
from lm_eval_ape.tasks.splits import Part, part_rows

OPTIONS = ("fewshot_examples", "fewshot_rows", "fewshot_name_labels", "fewshot_dir", "fewshot_seed")
PROMPT = (
    "Each of these texts is followed by its label.{named} Label the last text with one of the same labels.\n\n"
    "{context}\n\n"
    "Text: {input}\n"
    "Label:"
)


class Source(NamedTuple):
    """Where a dataset comes from.

    Attributes:
        hub: Its name on the Hugging Face hub, in a form that needs no loading script.
        folder: Its folder in `fewshot_dir`.
        label: The field with the label in words.
    """

    hub: str
    folder: str
    label: str


SOURCES: Mapping[str, Source] = {
    # 6 kinds of answers that a question asks for, and 50 finer ones.
    "trec": Source("SetFit/TREC-QC", "trec", "label_coarse_text"),
    "trec_fine": Source("SetFit/TREC-QC", "trec", "label_text"),
    # 77 intents of a bank's customers.
    "banking77": Source("mteb/banking77", "banking77", "label_text"),
}


class Example(NamedTuple):
    """A text and its label, each on one line."""

    text: str
    label: str


def load_fewshot(
    *,
    fewshot_dataset: str,
    fewshot_part: Part = "all",
    fewshot_examples: int = 200,
    fewshot_rows: int = 500,
    fewshot_name_labels: bool = False,
    fewshot_dir: str | None = None,
    fewshot_seed: int = 0,
    **metadata: object,
) -> dict[str, Dataset]:
    """Make the rows, or a part of them, as the split `test`; the same ones every time.

    A row's text is one of the dataset's test split, in random order; its demonstrations are of the train split.

    Args:
        fewshot_dataset: One of `SOURCES`.
        fewshot_part: `calibration` (32 rows), `test` (the others) or `all`; see `lm_eval_ape.tasks.splits`.
        fewshot_examples: Demonstrations of a row, other ones in every row.
        fewshot_rows: Rows of both parts together, at most; as many as there are different texts.
        fewshot_name_labels: Whether the instruction before the demonstrations names the labels that they show.
        fewshot_dir: Folder with `trec/train.jsonl`, `trec/test.jsonl` and the same of `banking77`, in the form in which
            the hub has them (fields `text` and the label's); None for the hub.
        fewshot_seed: Another number gives other rows and demonstrations.
        **metadata: What else the harness knows; unused.

    Raises:
        ApeError: An option is unknown or impossible, or the data cannot be read or is too small.
    """
    refuse_unknown(metadata, "fewshot_", OPTIONS)
    if fewshot_dataset not in SOURCES:
        raise ApeError(f"There is no dataset {fewshot_dataset!r}: there are {', '.join(SOURCES)}.")
    examples = whole_number("fewshot_examples", fewshot_examples, 1)
    most = whole_number("fewshot_rows", fewshot_rows, 1)
    seed = whole_number("fewshot_seed", fewshot_seed, 0)
    name_labels = switch("fewshot_name_labels", fewshot_name_labels)
    source = SOURCES[fewshot_dataset]
    train, test = (_read(source, split, fewshot_dir) for split in ("train", "test"))
    if len(train) <= examples:
        raise ApeError(
            f"The train split of {fewshot_dataset} has {len(train)} different texts, too few for fewshot_examples="
            f"{examples} beside a text to label: give a smaller number, or the complete file."
        )
    queries = Draws(f"fewshot {fewshot_dataset} {seed}").shuffled(test)[:most]
    classes = _by_label(train)
    docs = []
    for number in part_rows(len(queries), fewshot_part, source=f"The test split of {fewshot_dataset}"):
        query = queries[number]
        draws = Draws(f"fewshot {fewshot_dataset} {seed} {number}")
        shown = demonstrations(classes, examples, query.text, draws)
        labels = sorted({label for _, label in shown})
        docs.append(
            {
                "_id": f"{fewshot_dataset}-{seed}-{examples}-{number}",
                "context": "\n\n".join(f"Text: {text}\nLabel: {label}" for text, label in shown),
                "input": query.text,
                "answers": [query.label],
                "labels": labels,
                "named": labels if name_labels else [],
            }
        )
    return {"test": Dataset.from_list(docs)}


def prompt(doc: dict[str, Any]) -> str:
    """The prompt for one row."""
    named = f" The labels are {', '.join(doc['named'])}." if doc["named"] else ""
    return PROMPT.format(named=named, context=doc["context"], input=doc["input"])


def demonstrations(classes: Mapping[str, Sequence[Example]], count: int, query: str, draws: Draws) -> list[Example]:
    """Draw demonstrations, of every label equally many or one more, as far as its texts go.

    Args:
        classes: The examples by label.
        count: How many to draw.
        query: A text that must not be among them.
        draws: Where the choices come from.

    Returns:
        The demonstrations in random order.
    """
    pools = [draws.shuffled([one for one in classes[label] if one.text != query]) for label in sorted(classes)]
    # A round gives one of every label; the labels' order decides who gets the rest of the last round.
    pools = draws.shuffled(pools)
    rounds = [pool[place] for place in range(max(map(len, pools))) for pool in pools if place < len(pool)]
    return draws.shuffled(rounds[:count])


def _by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    classes: dict[str, list[Example]] = {}
    for example in examples:
        classes.setdefault(example.label, []).append(example)
    return classes


def _read(source: Source, split: str, folder: str | None) -> list[Example]:
    """The examples of a split, in its order, each text once."""
    if folder is None:
        instead = (
            "name a folder that holds trec/train.jsonl, trec/test.jsonl and the same of banking77: "
            '--metadata \'{"fewshot_dir": "/data/fewshot"}\'.'
        )
        fields = hub_rows(source.hub, split, instead=instead)
        rows = [Row(f"{source.hub}, split {split}", number, row) for number, row in enumerate(fields, start=1)]
    else:
        rows = read_jsonl_file(Path(path_text("fewshot_dir", folder)).expanduser() / source.folder / f"{split}.jsonl")
    examples: dict[str, Example] = {}
    for row in rows:
        # On one line, so that items are separated by nothing but empty lines.
        text = " ".join(row.text("text", empty=False).split())
        label = " ".join(row.text(source.label, empty=False).replace("_", " ").split())
        examples.setdefault(text, Example(text, label))
    return list(examples.values())
