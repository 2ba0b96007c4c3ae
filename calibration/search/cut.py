"""The samples of a search, cut as each of its encodings cuts them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from lm_eval.api.task import Task

from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.search.encodings import Encoding, LeftOut, Space
from lm_eval_ape.engine import support
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.harness.samples import Gathered, Sample, gather
from lm_eval_ape.settings.strategy import Settings

logger = logging.getLogger(__name__)

# Settings that a prompt's cut into prefix, chunks and query depends on; prompts cut alike are gathered once.
_CUT_BY = ("chunking", "chunk_tokens", "max_chunks", "chunks", "separator", "positions")


class Cut(NamedTuple):
    """What a search measures.

    Attributes:
        encodings: Those that the model can do, and that read the same prompts.
        gathered: The samples as each of them cuts them.
        left_out: What was asked for and is not tried.
        not_common: How many prompts were left out because not all encodings read them alike.
    """

    encodings: list[Encoding]
    gathered: list[Gathered]
    left_out: list[LeftOut]
    not_common: int = 0


def cut(lm: HarnessModel, options: Options, space: Space, tasks: Mapping[str, Task]) -> Cut:
    """Gather the samples for every encoding, and leave out those that the model cannot do.

    Samples are those that all encodings read, which share a teacher: a window that holds a prompt in chunks may not
    hold it in one sequence. An encoding that reads less than half of the first one's prompts is left out instead.

    Args:
        lm: The model.
        options: How prompts are built.
        space: The encodings that are asked for.
        tasks: The tasks.

    Raises:
        ApeError: Nothing is left to try.
    """
    gathered: dict[tuple[object, ...], Gathered | ApeError] = {}
    found = Cut([], [], list(space.left_out))
    for encoding in space.encodings:
        try:
            support.check(lm.model, encoding.settings)
        except ApeError as error:
            _leave_out(found, encoding, str(error))
            continue
        key = tuple(getattr(encoding.settings, name) for name in _CUT_BY)
        if key not in gathered:
            gathered[key] = _gather(lm, options, tasks, encoding.settings)
        own = gathered[key]
        if isinstance(own, ApeError):
            _leave_out(found, encoding, str(own))
        elif found.gathered and 2 * len(_texts(own) & _texts(found.gathered[0])) < len(found.gathered[0].samples):
            first = found.encodings[0].name
            _leave_out(found, encoding, f"It reads other prompts than {first}, so their teachers differ.")
        else:
            found.encodings.append(encoding)
            found.gathered.append(own)
    if not found.encodings:
        reasons = "\n".join(f"  {one.name}: {one.reason}" for one in found.left_out)
        raise ApeError(f"Of all that the search asks for, nothing can be tried:\n{reasons}")
    common = set.intersection(*map(_texts, found.gathered))
    if not common:
        raise ApeError("No prompt is read alike by all encodings; search among fewer of them.")
    not_common = max(len(own.samples) for own in found.gathered) - len(common)
    if not_common:
        logger.warning("%d prompts are left out, which not all encodings read alike.", not_common)
    kept = [own._replace(samples=[one for one in own.samples if _text(one) in common]) for own in found.gathered]
    return found._replace(gathered=kept, not_common=not_common)


def _gather(lm: HarnessModel, options: Options, tasks: Mapping[str, Task], settings: Settings) -> Gathered | ApeError:
    try:
        with lm.under(settings):
            return gather(
                lm,
                tasks,
                options,
                num_tokens=options.objective.num_tokens,
                on_too_long=options.on_too_long,
                limit=options.limit,
                picked=options.samples,
            )
    except ApeError as error:
        return error


def _leave_out(found: Cut, encoding: Encoding, reason: str) -> None:
    logger.warning("%s is left out: %s", encoding.name, reason)
    found.left_out.append(LeftOut(encoding.name, reason))


def _text(sample: Sample) -> tuple[str, int, int, tuple[int, ...]]:
    """What makes two samples the same to a teacher."""
    return sample.task, sample.doc_id, sample.number, sample.prompt.ids


def _texts(gathered: Gathered) -> set[tuple[str, int, int, tuple[int, ...]]]:
    return set(map(_text, gathered.samples))
