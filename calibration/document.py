"""The content of `calibration.json` and `run_config.yaml`, put together from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ape.artefacts import calibration as parts
from lm_eval_ape.artefacts import calibration_file, estimates
from lm_eval_ape.artefacts.document import LeftOut
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.calibration.grid.average import Floats, average
from lm_eval_ape.calibration.grid.choice import Choices, Chosen, Spread, Table, edges, spread
from lm_eval_ape.calibration.grid.measure import Measured
from lm_eval_ape.calibration.grid.stability import Parameter, difference, stability
from lm_eval_ape.calibration.grid.tuning import Rank
from lm_eval_ape.calibration.objective.objective import AVERAGES, SIGNALS, Average, Signal
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.harness.metrics import Metric
from lm_eval_ape.harness.samples import Gathered, Sample
from lm_eval_ape.harness.specs import typed


def grid_part(table: Table) -> parts.Grid:
    """The grid, the points measured beside it, and their means."""
    means = table.means
    return parts.Grid(
        temperatures=list(table.grid.temperatures),
        scales=list(table.grid.scales),
        points=list(table.points),
        choosable=[point in table.grid.points for point in table.points],
        mean_kl=[means[point] for point in table.points],
    )


def samples_part(samples: Sequence[Sample], measured: Measured) -> list[parts.Sample]:
    """Every sample with its divergences, in the order of the grid's points."""
    return [
        parts.Sample(
            task=sample.task,
            doc_id=sample.doc_id,
            number=sample.number,
            prompt_sha256=sample.digest,
            tokens=len(sample.prompt.ids),
            chunks=len(sample.prompt.chunks),
            kl=kl.tolist(),
            positions=positions.tolist(),
        )
        for sample, kl, positions in zip(samples, measured.kl, measured.positions, strict=True)
    ]


def signals_part(measured: Measured, table: Table, choose_by: str) -> parts.Signals:
    """All signals, averaged in every way."""
    averages: dict[str, dict[str, list[float]]] = {}
    for signal in SIGNALS:
        own = measured.signal(signal)
        averages[signal] = {str(how): average(own, how).tolist() for how in AVERAGES}
    return parts.Signals(choose_by=choose_by, average=table.average, averages=averages)


def choice_part(table: Table, choices: Choices) -> parts.Choice:
    """The choice, how it compares with tuning one parameter, and how much each parameter matters."""
    chosen = choices.chosen
    over_temperature, over_scale = spread(table, table.grid.temperature_line), spread(table, table.grid.scale_line)
    return parts.Choice(
        **_chosen(chosen),
        edges=edges(table.grid, chosen.point),
        temperature_only=parts.Chosen(**_chosen(choices.temperature_only)),
        scale_only=parts.Chosen(**_chosen(choices.scale_only)),
        over_temperature=_spread(over_temperature),
        over_scale=_spread(over_scale),
        range_ratio=over_temperature.range / over_scale.range if over_scale.range > 0 else None,
    )


def stability_part(table: Table, chosen: Point, weights: Floats, seed: int) -> parts.Stability:
    """What the resamples choose, and how sure the chosen point beats the untuned ones.

    Args:
        table: What the choice was made from.
        chosen: The choice.
        weights: Resamples of the samples.
        seed: Of the resamples.
    """
    found = stability(table, weights)

    def beats(rival: Point) -> estimates.Difference:
        return difference(table.of(rival), table.of(chosen), weights)

    return parts.Stability(
        resamples=len(weights),
        seed=seed,
        temperature=_parameter(found.temperature),
        scale=_parameter(found.scale),
        frequencies=[parts.Frequency(point=point, share=share) for point, share in found.frequencies.items()],
        beats=parts.Beats(default=beats(DEFAULT), neutral=beats(NEUTRAL)),
    )


def labels_part(
    metric: Metric,
    scores: Mapping[Point, float],
    documents: int,
    oracle: Point,
    ranks: Mapping[tuple[Signal, Average], Rank],
) -> parts.Labels:
    """What labels say of the grid."""
    return parts.Labels(
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        documents=documents,
        points=list(scores),
        mean_scores=list(scores.values()),
        oracle=parts.Oracle(**_named(oracle), score=scores[oracle]),
        spearman=estimates.Rank(**ranks["kl", "mean"]._asdict()),
        signals=signal_ranks(ranks),
    )


def signal_ranks(ranks: Mapping[tuple[Signal, Average], Rank]) -> list[estimates.SignalRank]:
    """How each signal, averaged in each way, goes with the score."""
    return [estimates.SignalRank(signal=signal, average=how, **rank._asdict()) for (signal, how), rank in ranks.items()]


def left_out_part(gathered: Gathered) -> LeftOut:
    """How many samples were left out, and why."""
    return LeftOut(too_long=gathered.too_long, no_context=gathered.no_context)


def run_config(
    options: Options, chosen: Mapping[str, Any], tasks: Sequence[str], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """A configuration for `lm_eval run --config`: the choice on the tasks it is meant for."""
    optional = {
        "device": options.device,
        "num_fewshot": options.num_fewshot,
        "apply_chat_template": options.apply_chat_template or None,
        "fewshot_as_multiturn": options.fewshot_as_multiturn,
        "system_instruction": options.system_instruction,
        "include_path": list(options.include_path) or None,
    }
    return {
        "model": "ape-hf",
        "model_args": {**options.model_args, **chosen},
        "tasks": list(tasks),
        "batch_size": options.batch_size,
        **{name: value for name, value in optional.items() if value is not None},
        "metadata": {**options.metadata, "lm_eval_ape_calibration": dict(provenance)},
    }


def requests_part(options: Options) -> dict[str, Any]:
    """How the requests were built."""
    names = ("limit", "samples", "num_fewshot", "apply_chat_template", "system_instruction", "metadata", "include_path")
    return {**{name: getattr(options, name) for name in names}, "fewshot_as_multiturn": options.multiturn}


def chosen_arguments(content: parts.Calibration, path: str) -> dict[str, Any]:
    """The model arguments that take a calibration's result up: what a search chose, and T and S.

    Args:
        content: Of `calibration.json`.
        path: To it or its folder, for what is more than one T and S.
    """
    found = calibration_file.found(content)
    encoding = content.frontier.choice.arguments if content.frontier else {}
    if found.factors is not None:
        return {**encoding, "calibration": path}
    return {**encoding, **_named(Point(found.attn_temperature, found.attn_scale))}


def model_args_line(content: parts.Calibration, path: str) -> str:
    """The result as the harness's `--model_args` takes it."""
    return ",".join(f"{name}={typed(value)}" for name, value in chosen_arguments(content, path).items())


def _named(point: Point) -> dict[str, float]:
    return {"attn_temperature": point.temperature, "attn_scale": point.scale}


def _chosen(found: Chosen) -> dict[str, Any]:
    return {**_named(found.point), "mean_kl": found.mean_kl, "ties": list(found.ties)}


def _spread(found: Spread) -> parts.Spread:
    return parts.Spread(least=found.least, most=found.most, range=found.range)


def _parameter(found: Parameter) -> parts.Parameter:
    return parts.Parameter(mode=found.mode, low=found.low, high=found.high, width=found.width, stable=found.stable)
