"""What a calibration will take, before any weight is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from time import perf_counter
from typing import NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from lm_eval_ape.artefacts.points import DEFAULT
from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.calibration.grid.candidates import Candidate
from lm_eval_ape.calibration.grid.scoring import LOGIT_BYTES, Scorer
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import Teacher, ask
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import Calibration
from lm_eval_ape.calibration.search.cut import cut
from lm_eval_ape.engine.operations import ModelShape, PromptOperations
from lm_eval_ape.forecast.forecast import Forecast, make_forecast
from lm_eval_ape.forecast.parts import Held, Item, Part, context_tokens, passed_tokens
from lm_eval_ape.forecast.random_model import RandomApeHFLM
from lm_eval_ape.forecast.requests import request_parts
from lm_eval_ape.forecast.weightless import WeightlessApeHFLM
from lm_eval_ape.harness.reference_answers import ANSWER_NATS, answer_requests
from lm_eval_ape.harness.samples import all_requests, gather
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.clock import now
from lm_eval_ape.settings.strategy import Settings

# How many choices of a grid are measured on test tasks; they may be the same.
_CHOICES = 5


class PointParts:
    """The parts in which points are measured on prompts.

    Args:
        objective: What is measured; no sequence is taken to end before K tokens.
        points: The points.
        vocabulary: How many tokens the model knows.
        max_rows: Most points in one batch.
    """

    def __init__(
        self, objective: Objective, points: Sequence[Candidate], vocabulary: int, max_rows: int | None = None
    ) -> None:
        self.objective = replace(objective, after_eos="continue")
        self.points = points
        self.vocabulary = vocabulary
        self.max_rows = max_rows
        # What the last prompt's scoring started from, so that repeating it is cheap.
        self._last: tuple[object, Teacher, EncodedPrompt] | None = None

    def teacher(self, name: str, settings: Settings, prompts: Sequence[Prompt]) -> Part:
        """The sequential model on prompts.

        Args:
            name: The part's.
            settings: Those of any encoding; the teacher reads none.
            prompts: The prompts.
        """
        steps = self.objective.num_tokens

        def operations(shape: ModelShape, settings: Settings, item: Item) -> float:
            before = (self._positions(item) - 1) * shape.head
            return PromptOperations.of(shape, item.prompts[0]).teacher(steps) + before

        def held(item: Item) -> Held:
            positions = self._positions(item)
            return Held(item.tokens + steps, item.tokens, positions, 2 * positions + steps)

        def read(lm: RandomApeHFLM, prompt: Prompt) -> float:
            start = now(lm.engine.device)
            self._teach(lm, prompt)
            return now(lm.engine.device) - start

        return Part(name, settings, _items(prompts), operations, _under(settings, read), held)

    def readings(self, name: str, settings: Settings, prompts: Sequence[Prompt]) -> list[Part]:
        """Encoding prompts, and scoring all points on them.

        Args:
            name: The settings' name and a colon; empty for none.
            settings: How prompts are encoded.
            prompts: The prompts, as the settings cut them.
        """
        steps, count = self.objective.num_tokens, len(self.points)

        def encoding(shape: ModelShape, settings: Settings, item: Item) -> float:
            counted = PromptOperations.of(shape, item.prompts[0])
            return counted.prefill(settings) - counted.reading

        def scoring(shape: ModelShape, settings: Settings, item: Item) -> float:
            before = count * (self._positions(item) - 1) * shape.head
            return PromptOperations.of(shape, item.prompts[0]).scoring(count, steps) + before

        def encoded(item: Item) -> Held:
            return Held(context_tokens(item.prompts[0]), passed_tokens(item.prompts, settings), 1, 1)

        def scored(item: Item) -> Held:
            (prompt,), positions = item.prompts, self._positions(item)
            wanted = positions - 1 + (1 if self.objective.history == "own" else steps)
            rows = min(count, self.max_rows or count, max(1, LOGIT_BYTES // (4 * wanted * self.vocabulary)))
            tokens = rows * (len(prompt.query) + steps)
            # What is compared at one position, beside the teacher's distributions.
            return Held(context_tokens(prompt) + tokens, tokens, rows * wanted, 6 * rows + positions - 1 + steps)

        def encode(lm: RandomApeHFLM, prompt: Prompt) -> float:
            start = now(lm.engine.device)
            lm.engine.encode(prompt)
            return now(lm.engine.device) - start

        words = f"{name}{count} point{'' if count == 1 else 's'} scored"
        items = _items(prompts)
        return [
            Part(f"{name}chunks encoded", settings, items, encoding, _under(settings, encode), encoded),
            Part(words, settings, items, scoring, _under(settings, self._score), scored),
        ]

    def _positions(self, item: Item) -> int:
        """After how many of a prompt's tokens distributions count."""
        return len(item.prompts[0].query) if self.objective.reads_query else 1

    def _teach(self, lm: RandomApeHFLM, prompt: Prompt) -> Teacher:
        positions = self._positions(Item((prompt,)))
        return ask(lm, prompt.ids, self.objective.num_tokens, (), "a prompt", query=positions)

    def _score(self, lm: RandomApeHFLM, prompt: Prompt) -> float:
        key = lm, prompt, lm.settings
        if self._last is None or self._last[0] != key:
            self._last = key, self._teach(lm, prompt), lm.engine.encode(prompt)
        _, teacher, encoded = self._last
        scorer = Scorer(lm, self.objective, self.max_rows)
        start = now(lm.engine.device)
        scorer.score(encoded, prompt, teacher, self.points, sample="a prompt")
        return now(lm.engine.device) - start


def _items(prompts: Sequence[Prompt]) -> list[Item]:
    return [Item((prompt,)) for prompt in prompts]


def _under(
    settings: Settings, step: Callable[[RandomApeHFLM, Prompt], float]
) -> Callable[[RandomApeHFLM, Item], float]:
    def measure(lm: RandomApeHFLM, item: Item) -> float:
        with lm.under(lm.fitting(settings)):
            return step(lm, item.prompts[0])

    return measure


class _Encoding(NamedTuple):
    """An encoding with the prompts as it cuts them."""

    name: str
    settings: Settings
    prompts: list[Prompt]


def dry_run(options: Options) -> Forecast | None:
    """Tell what a calibration will take.

    Args:
        options: Those of the calibration.

    Returns:
        The forecast; None on every process but the first.

    Raises:
        ApeError: The calibration would refuse them, as far as that can be known without weights and without a folder.
    """
    plan = Calibration(options.model_copy(update={"output_path": None, "cache_path": None}))
    lm = WeightlessApeHFLM.of(options.model_args, options)
    start = perf_counter()
    encodings = _encodings(lm, plan)
    read = list(encodings[0].prompts)
    points = _points(lm, plan, plan.grid.reported)
    parts = [points.teacher("teacher", encodings[0].settings, read)]
    for one in encodings:
        parts += points.readings(f"{one.name}: " if plan.space else "", one.settings, one.prompts)
    # Which one a search will choose is not known: the one that costs most.
    shape = ModelShape.of(lm.model)
    chosen = max(encodings, key=lambda one: _mean_prefill(shape, one))
    if plan.metric:
        parts += _labels(lm, plan, encodings, chosen)
    if plan.test_tasks:
        test, prompts = _test(lm, plan, chosen)
        parts += test
        read += prompts
    cutting = perf_counter() - start
    return make_forecast(lm, "calibrate", parts, read=read, cutting_seconds=cutting, not_counted=_not_counted(plan))


def _points(lm: WeightlessApeHFLM, plan: Calibration, points: Sequence[Candidate]) -> PointParts:
    return PointParts(plan.objective, points, lm.config.get_text_config().vocab_size, plan.options.max_rows)


def _encodings(lm: WeightlessApeHFLM, plan: Calibration) -> list[_Encoding]:
    """Those of a search, or the one of the model's arguments."""
    options = plan.options
    if plan.space:
        found = cut(lm, options, plan.space, plan.tasks)
        pairs = zip(found.encodings, found.gathered, strict=True)
        return [_Encoding(one.name, one.settings, [sample.prompt for sample in own.samples]) for one, own in pairs]
    gathered = gather(
        lm,
        plan.tasks,
        options,
        num_tokens=plan.objective.num_tokens,
        on_too_long=options.on_too_long,
        limit=options.limit,
        picked=options.samples,
    )
    return [_Encoding("", lm.settings, [sample.prompt for sample in gathered.samples])]


def _mean_prefill(shape: ModelShape, encoding: _Encoding) -> float:
    return fmean(PromptOperations.of(shape, prompt).prefill(encoding.settings) for prompt in encoding.prompts)


def _labels(lm: WeightlessApeHFLM, plan: Calibration, encodings: Sequence[_Encoding], chosen: _Encoding) -> list[Part]:
    """Every point of the grid through the harness, and each encoding of a search at one point."""
    options = plan.options
    requests = _requests(lm, plan.tasks, options, options.limit, options.samples)
    parts: list[Part] = []
    if options.method != "gradient":
        parts += request_parts(lm, "labels", chosen.settings, requests, times=len(plan.grid.points))
    for one in encodings if plan.space else ():
        parts += request_parts(lm, f"{one.name}: labels", one.settings, requests)
    return parts


def _test(lm: WeightlessApeHFLM, plan: Calibration, chosen: _Encoding) -> tuple[list[Part], list[Prompt]]:
    """The choices on test tasks, and the prompts of these."""
    options = plan.options
    with lm.under(chosen.settings):
        gathered = gather(
            lm,
            plan.test_tasks,
            options,
            num_tokens=plan.objective.num_tokens,
            on_too_long=options.on_too_long,
            limit=options.test_limit,
        )
    prompts = [sample.prompt for sample in gathered.samples]
    choices = _CHOICES + options.measures_entropy + options.with_labels
    points = _points(lm, plan, [DEFAULT] * choices)
    parts = [points.teacher("test: teacher", chosen.settings, prompts)]
    parts += points.readings("test: ", chosen.settings, prompts)
    if plan.metric:
        requests = _requests(lm, plan.test_tasks, options, options.test_limit, {})
        parts += request_parts(lm, "test: labels", chosen.settings, requests, times=choices)
    return parts, prompts


def _requests(
    lm: WeightlessApeHFLM,
    tasks: Mapping[str, Task],
    options: Options,
    limit: float | None,
    picked: Mapping[str, list[int]],
) -> list[Instance]:
    found: list[Instance] = []
    for name, task in tasks.items():
        if options.metric == ANSWER_NATS:
            found += answer_requests(lm, task, options, limit=limit, picked=picked)
            continue
        for request in all_requests(lm, task, options, limit=limit, numbers=picked.get(name)):
            found += [request] * request.repeats
    return found


def _not_counted(plan: Calibration) -> list[str]:
    """What of a calibration has no part, in words."""
    options, found = plan.options, []
    if plan.space and options.race:
        found.append("the race, which stops measuring what is beyond doubt worse: every encoding is counted to the end")
    if plan.space and (plan.metric or plan.test_tasks):
        found.append("which encoding is chosen is not known: labels and test tasks are counted under the dearest")
    if options.by_gradient:
        found.append("the gradient descent, whose number of steps is not known before")
    if options.measures_entropy:
        found.append("the attention entropy, which costs more than the scoring of the points")
    return found
