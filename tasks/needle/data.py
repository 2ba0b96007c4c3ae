"""The rows of needle tasks: sentences with numbers, hidden in a long text, and the question for some of the numbers.

The task is Kamradt's needle in a haystack (https://github.com/gkamradt/LLMTest_NeedleInAHaystack) in the form of RULER
(Hsieh et al., COLM 2024): several needles, of which some are asked for and the others are like them. The needles' and
the prompt's wording is our own.
"""

from itertools import accumulate
from typing import Any

from datasets import Dataset

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.draws import Draws
from lm_eval_ape.tasks.needle.haystack import cut_sentences, generated_sentences, local_sentences
from lm_eval_ape.tasks.options import path_text, refuse_unknown, share, whole_number
from lm_eval_ape.tasks.splits import Part, part_rows

OPTIONS = (
    *("needle_count", "needle_distractors", "needle_depth", "needle_words", "needle_haystack"),
    *("needle_rows", "needle_seed"),
)
PROMPT = (
    "The following text tells the room numbers of some people. Remember them.\n\n"
    "{context}\n\n"
    "Question: {question}\n"
    "Answer:"
)
_NAMES = (
    "Alba Bruno Carla Dario Edith Felix Greta Hugo Irene Jonas Karin Lorenz Marta Nils Olga Pablo Ruth Simon Tilda"
    " Ursula Viktor Wanda Xenia Yannick Zora"
).split()
MOST_NEEDLES = len(_NAMES)
_PARAGRAPH = 6


def load_needle(
    *,
    needle_part: Part = "all",
    needle_count: int = 1,
    needle_distractors: int = 3,
    needle_depth: float | None = None,
    needle_words: int = 6000,
    needle_haystack: str | None = None,
    needle_rows: int = 200,
    needle_seed: int = 0,
    **metadata: object,
) -> dict[str, Dataset]:
    """Generate the rows, or a part of them, as the split `test`; the same ones every time.

    Args:
        needle_part: `calibration` (32 rows), `test` (the others) or `all`; see `lm_eval_ape.tasks.splits`.
        needle_count: Needles that are asked for, all in one question.
        needle_distractors: Needles of the same form that are not asked for.
        needle_depth: Where the needles that are asked for stand, one after another: 0 is the beginning of the text, 1
            its end. None for random places of their own, as distractors always have.
        needle_words: Words of a haystack, needles not counted (6,000 are about 8,000 tokens).
        needle_haystack: A `.txt` file, or a folder of them, to take haystacks from; None for generated sentences.
        needle_rows: Rows of both parts together.
        needle_seed: Another number gives other rows.
        **metadata: What else the harness knows; unused.

    Raises:
        ApeError: An option is unknown or impossible, or the text cannot be read or is too short.
    """
    refuse_unknown(metadata, "needle_", OPTIONS)
    asked = whole_number("needle_count", needle_count, 1, MOST_NEEDLES)
    distractors = whole_number("needle_distractors", needle_distractors, 0)
    if asked + distractors > MOST_NEEDLES:
        raise ApeError(
            f"needle_count={asked} and needle_distractors={distractors} are more needles than there are names for: "
            f"{MOST_NEEDLES} in all."
        )
    depth = None if needle_depth is None else share("needle_depth", needle_depth)
    words = whole_number("needle_words", needle_words, 1)
    rows = whole_number("needle_rows", needle_rows, 1)
    seed = whole_number("needle_seed", needle_seed, 0)
    text = None if needle_haystack is None else local_sentences(path_text("needle_haystack", needle_haystack))
    docs = []
    for number in part_rows(rows, needle_part, source=f"needle_rows={rows}"):
        draws = Draws(f"needle {seed} {asked} {distractors} {words} {number}")
        names = draws.shuffled(_NAMES)[: asked + distractors]
        needles = list(zip(names, _codes(draws, len(names)), strict=True))
        if text is None:
            sentences = generated_sentences(draws, words)
        else:
            sentences = cut_sentences(text, draws, words, f"needle_haystack={needle_haystack}")
        context, places = _hide(sentences, needles, _depths(draws, asked, distractors, depth))
        docs.append(
            {
                "_id": f"needle-{seed}-{asked}-{distractors}-{words}-{number}",
                "context": context,
                "question": _question([name for name, _ in needles[:asked]]),
                "answers": [code for _, code in needles[:asked]],
                "depths": places[:asked],
            }
        )
    return {"test": Dataset.from_list(docs)}


def prompt(doc: dict[str, Any]) -> str:
    """The prompt for one row."""
    return PROMPT.format(context=doc["context"], question=doc["question"])


def _codes(draws: Draws, count: int) -> list[str]:
    """Different numbers of four digits."""
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes[str(1000 + draws.number(9000))] = None
    return list(codes)


def _depths(draws: Draws, asked: int, distractors: int, depth: float | None) -> list[float]:
    drawn = [draws.number(10_001) / 10_000 for _ in range(asked + distractors)]
    return drawn if depth is None else [depth] * asked + drawn[asked:]


def _hide(sentences: list[str], needles: list[tuple[str, str]], depths: list[float]) -> tuple[str, list[float]]:
    """Put needles between sentences; return the text in paragraphs, and where in the haystack each needle stands."""
    ends = list(accumulate((len(sentence.split()) for sentence in sentences), initial=0))
    borders = [min(range(len(ends)), key=lambda place: abs(ends[place] - depth * ends[-1])) for depth in depths]
    lines = list(sentences)
    # From the last border on, so that earlier ones keep their numbers; of one border's needles the first stays first.
    for number in sorted(range(len(needles)), key=lambda number: (borders[number], number), reverse=True):
        name, code = needles[number]
        lines.insert(borders[number], f"The room number of {name} is {code}.")
    paragraphs = [" ".join(lines[start : start + _PARAGRAPH]) for start in range(0, len(lines), _PARAGRAPH)]
    return "\n\n".join(paragraphs), [ends[border] / ends[-1] for border in borders]


def _question(names: list[str]) -> str:
    if len(names) == 1:
        return f"What is the room number of {names[0]}? Answer with the number alone."
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"What are the room numbers of {listed}? Answer with the numbers alone, in this order, separated by commas."
