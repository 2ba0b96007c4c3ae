"""What a comparison will take, before any weight is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.dry_run import PointParts
from lm_eval_ape.calibration.grid.candidates import Candidate
from lm_eval_ape.comparison.compare import check_baseline
from lm_eval_ape.comparison.kl import kl_objective, kl_samples
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.running import ask
from lm_eval_ape.comparison.runs import read_folders
from lm_eval_ape.engine import support
from lm_eval_ape.errors import ApeError
from lm_eval_ape.forecast.forecast import Forecast, make_forecast
from lm_eval_ape.forecast.parts import Part
from lm_eval_ape.forecast.requests import request_parts
from lm_eval_ape.forecast.weightless import WeightlessApeHFLM
from lm_eval_ape.harness.catalogue import FEWSHOT_SEED
from lm_eval_ape.harness.reference_answers import answer_requests
from lm_eval_ape.harness.samples import all_requests
from lm_eval_ape.harness.specs import Spec
from lm_eval_ape.prompts.prompt import Prompt


def dry_run(options: Options) -> Forecast | None:
    """Tell what a comparison will take.

    Args:
        options: Those of the comparison.

    Returns:
        The forecast; None on every process but the first.

    Raises:
        ApeError: Nothing is run; or the comparison would refuse the options, as far as that can be known without
            weights and without a folder.
    """
    if not options.runs:
        raise ApeError(
            "dry_run tells what running strategies takes, but no model is named; add --model_args or drop it."
        )
    specs, tasks, _ = ask(options)
    check_baseline(options, specs, read_folders(options.sources))
    lm = WeightlessApeHFLM.of(specs[0].arguments, options)
    start = perf_counter()
    for spec in specs:
        support.check(lm.model, spec.settings)
    requests = _requests(lm, tasks, options)
    parts: list[Part] = []
    read: list[Prompt] = []
    for spec in specs:
        own = request_parts(lm, spec.label, spec.settings, requests)
        parts += own
        # A generated answer has two parts, and reads its prompt once.
        read += [prompt for part in own if part.reads for prompt in part.prompts]
    if options.answer_nats:
        answers = [
            request for task in tasks.values() for request in answer_requests(lm, task, options, limit=options.limit)
        ]
        for spec in specs:
            parts += request_parts(lm, f"{spec.label}, reference", spec.settings, answers)
    if options.kl_tokens:
        parts += _divergences(lm, specs, tasks, options)
    return make_forecast(lm, "compare", parts, read=read, cutting_seconds=perf_counter() - start)


def _requests(lm: WeightlessApeHFLM, tasks: Mapping[str, Task], options: Options) -> list[Instance]:
    """All that the harness asks of each strategy."""
    found: list[Instance] = []
    for task in tasks.values():
        # As the harness does before each run.
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
        if options.gen_kwargs and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(options.gen_kwargs), update=True)
        for request in all_requests(lm, task, options, limit=options.limit):
            found += [request] * request.repeats
    return found


def _divergences(
    lm: WeightlessApeHFLM, specs: Sequence[Spec], tasks: Mapping[str, Task], options: Options
) -> list[Part]:
    """The teacher once for all strategies, then each parallel one."""
    parts: list[Part] = []
    asked: dict[tuple[int, ...], Prompt] = {}
    parallel = [spec for spec in specs if spec.settings.parallel]
    vocabulary = lm.config.get_text_config().vocab_size
    for spec in parallel:
        with lm.under(spec.settings):
            gathered = kl_samples(lm, tasks, options)
        prompts = [sample.prompt for sample in gathered.samples]
        asked |= {prompt.ids: prompt for prompt in prompts}
        point: Candidate = Point(spec.settings.attn_temperature, spec.settings.attn_scale)
        points = PointParts(kl_objective(options), [point], vocabulary, 1)
        if prompts:
            parts += points.readings(f"{spec.label}, KL: ", spec.settings, prompts)
    if asked:
        parts.append(points.teacher("KL: teacher", parallel[0].settings, list(asked.values())))
    return parts
