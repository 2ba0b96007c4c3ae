"""What T and S of each layer and head gain over one of each, on the shipped model: divergence, score, transfer, cost.

    python benchmarks/finer_than_a_grid.py kl score --output_path out/finer > table.md
    python benchmarks/finer_than_a_grid.py samples positions transfer cost --output_path out/finer >> table.md

Every part keeps what it computes under `--output_path` and goes on there when it is started again. Intervals are 95%
percentile bootstrap intervals of paired differences over test rows, which no fit ever saw.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lm_eval_ape.artefacts.points import DEFAULT, Point

if TYPE_CHECKING:
    from lm_eval_ape.artefacts.board import Difference
    from lm_eval_ape.calibration.grid.candidates import Candidate

KINDS = ("onehop", "twohop", "classify", "needle")
FITS = ("grid", "model", "layer", "head")
RESAMPLES, SEED = 9999, 1234


class Bench:
    """Calibrations and what is read off them.

    Args:
        folder: Where everything is kept.
        chunks: Numbers of chunks that contexts of ten passages are read in.
        kinds: Kinds of question.
        fits: Which calibrations to show: `grid`, `model`, `layer`, `head`.
        counts: Numbers of samples to fit on.
    """

    def __init__(
        self, folder: Path, *, chunks: Sequence[int], kinds: Sequence[str], fits: Sequence[str], counts: Sequence[int]
    ) -> None:
        self.folder = folder
        self.counts = counts
        self.chunks = chunks
        self.kinds = kinds
        self.fits = fits

    def calibrated(self, kind: str, chunks: int, fit: str, *, samples: int = 32, **options: Any) -> Path:
        """The folder of a calibration, made if it is not there."""
        from lm_eval_ape.calibration.options import Options
        from lm_eval_ape.calibration.run import calibrate

        extra = "".join(f"-{name}-{value}" for name, value in options.items())
        place = self.folder / "fits" / f"{kind}-chunks-{chunks}-samples-{samples}-{fit}{extra}"
        if not (place / "calibration.json").exists():
            method = {"method": "grid", "history": "teacher"}
            if fit != "grid":
                method = {"method": "gradient", "granularity": fit}
            calibrate(
                Options.read(
                    {
                        **method,
                        **options,
                        "model_args": model_args(chunks),
                        "tasks": f"ape_pocket_{kind}_calibration",
                        "test_tasks": f"ape_pocket_{kind}_test",
                        "limit": samples,
                        "metadata": {"pocket_calibration_rows": max(32, samples)},
                        "output_path": str(place),
                        # Teachers and divergences are shared by all calibrations.
                        "cache_path": str(self.folder / "cache"),
                    }
                )
            )
        return place

    def kl(self) -> Iterator[str]:
        """Divergence on test rows of every calibration."""
        yield "| chunks | fitted and tested on | setting | test KL | less than (0.9, 0.9) | KL on its samples |"
        yield "|---:|---|---|---:|---:|---:|"
        for chunks in self.chunks:
            for kind in self.kinds:
                files = {fit: content(self.calibrated(kind, chunks, fit)) for fit in self.fits}
                rows = {row["name"]: row for row in files["grid"]["test"]["rows"]}
                default = np.array(rows["default"]["kl"])
                own = dict(
                    zip(map(tuple, files["grid"]["grid"]["points"]), files["grid"]["grid"]["mean_kl"], strict=True)
                )
                settings = [("(1, 1)", rows["neutral"]["kl"], own[1.0, 1.0])]
                settings += [("(0.9, 0.9)", rows["default"]["kl"], own[0.9, 0.9])]
                for fit, file in files.items():
                    found = file.get("gradient") or file["choice"]
                    name = f"{fit} {point(found)}" if fit in ("grid", "model") else fit
                    settings.append((name, file["test"]["rows"][0]["kl"], found["mean_kl"]))
                for name, values, mean in settings:
                    less = interval(default - np.array(values))
                    yield f"| {chunks} | {kind} | {name} | {np.mean(values):.4f} | {less} | {mean:.4f} |"

    def score(self) -> Iterator[str]:
        """Test scores of calibrations fitted on one kind of question, on every kind."""
        from lm_eval_ape.comparison.compare import compare
        from lm_eval_ape.comparison.options import Options

        yield "| chunks | tested on | fitted on | setting | score x 100 | less sequential | less (0.9, 0.9) |"
        yield "|---:|---|---|---|---:|---:|---:|"
        neutral = "ape[attn_temperature=1.0,attn_scale=1.0]"
        for chunks in self.chunks:
            places = {
                f"ape@{self.calibrated(kind, chunks, fit)}": (kind, fit) for kind in self.kinds for fit in self.fits
            }
            specs = self._different(["sequential", neutral, "ape", *places])
            options = {
                "model_args": model_args(chunks),
                "tasks": [f"ape_pocket_{kind}_test" for kind in KINDS],
                "strategies": specs,
                "batch_size": 8,
                "output_path": str(self.folder / f"board-chunks-{chunks}"),
                "resamples": RESAMPLES,
                "seed": SEED,
            }
            one, other = (
                compare(Options.read({**options, "baseline": baseline}), command=sys.argv)
                for baseline in ("sequential", "ape")
            )
            assert one
            assert other
            for task in one.tasks:
                for row, against_ape in zip(one.rows, other.rows, strict=True):
                    on, name = places.get(row.label, ("", row.label))
                    cells = [difference(found.tasks[task].difference) for found in (row, against_ape)]
                    score = f"{100 * row.tasks[task].score:.1f}"
                    kind = task.removeprefix("ape_pocket_").removesuffix("_test")
                    yield f"| {chunks} | {kind} | {on} | {name} | {score} | {' | '.join(cells)} |"

    def _different(self, specs: Sequence[str]) -> list[str]:
        """The specs without those that read exactly as an earlier one."""
        from lm_eval_ape.artefacts import calibration_file

        found: dict[Any, str] = {(0.9, 0.9, None): "ape", (1.0, 1.0, None): "neutral"}
        kept = []
        for spec in specs:
            if (
                "@" in spec
                and found.setdefault(calibration_file.found(calibration_file.read(Path(spec[4:]))), spec) != spec
            ):
                continue
            kept.append(spec)
        return kept

    def samples(self) -> Iterator[str]:
        """Divergence on test rows against the number of samples, with and without the penalty."""
        yield "| samples | setting | returned | held out: less than the start | KL on its samples | test KL | less |"
        yield "|---:|---|---|---:|---:|---:|---:|"
        variants: list[tuple[str, str, dict[str, Any]]] = [
            ("grid", "grid", {}),
            ("model", "model", {}),
            ("head, no penalty", "head", {"penalty": 0}),
            ("head", "head", {}),
        ]
        for count in self.counts:
            for name, fit, options in variants:
                file = content(self.calibrated("twohop", 2, fit, samples=count, **options))
                rows = {row["name"]: np.array(row["kl"]) for row in file["test"]["rows"]}
                found = file.get("gradient") or file["choice"]
                less = interval(rows["default"] - rows["chosen"])
                returned, held_out = _result(found)
                means = f"{found['mean_kl']:.4f} | {rows['chosen'].mean():.4f}"
                yield f"| {count} | {name} | {returned} | {held_out} | {means} | {less} |"

    def positions(self) -> Iterator[str]:
        """How the fit changes with the tokens that are compared; test KL is that of the new tokens each time."""
        yield "| compared | samples | returned | held out: less than the start | test KL of new tokens | less |"
        yield "|---|---:|---|---:|---:|---:|"
        names = {"next": "8 new tokens", "query": "the query's tokens", "both": "both"}
        default = self._measured("twohop", [DEFAULT])[0]
        for asked, name in names.items():
            for count in self.counts:
                options = {} if asked == "next" else {"positions": asked}
                place = self.calibrated("twohop", 2, "head", samples=count, **options)
                returned, held_out = _result(content(place)["gradient"])
                own = self._measured("twohop", [self._found(place)])[0]
                cells = f"{returned} | {held_out} | {own.mean():.4f} | {interval(default - own)}"
                yield f"| {name} | {count} | {cells} |"

    def transfer(self) -> Iterator[str]:
        """Divergence of a fit where it was not made: other questions, longer contexts, more chunks."""
        yield "| fitted on | tested on | (0.9, 0.9) | grid: less | head: less |"
        yield "|---|---|---:|---:|---:|"
        for chunks, passages in ((2, 10), (5, 10), (2, 40), (10, 40)):
            for tested in self.kinds:
                for fitted in self.kinds:
                    default, grid, head = self._elsewhere(fitted, tested, chunks, passages)
                    yield (
                        f"| {fitted}, 2 chunks, 10 passages | {tested}, {chunks} chunks, {passages} passages | "
                        f"{default.mean():.4f} | {interval(default - grid)} | {interval(default - head)} |"
                    )

    def _elsewhere(self, fitted: str, tested: str, chunks: int, passages: int) -> list[Any]:
        """Divergences of (0.9, 0.9) and of two fits on two chunks, `(test rows,)` each."""
        fits = [self._found(self.calibrated(fitted, 2, fit)) for fit in ("grid", "head")]
        return self._measured(tested, [DEFAULT, *fits], chunks=chunks, passages=passages)

    @staticmethod
    def _found(place: Path) -> Candidate:
        """What a calibration chose."""
        from lm_eval_ape.artefacts import calibration_file

        found = calibration_file.found(calibration_file.read(place))
        return found.factors or Point(found.attn_temperature, found.attn_scale)

    def _measured(
        self, tested: str, candidates: Sequence[Candidate], *, chunks: int = 2, passages: int = 10
    ) -> list[Any]:
        """Divergences of some settings after new tokens, `(test rows,)` each."""
        from lm_eval_ape.calibration.grid.measure import Meter
        from lm_eval_ape.calibration.objective.objective import Objective
        from lm_eval_ape.harness.ape_hf import ApeHFLM
        from lm_eval_ape.harness.catalogue import Catalogue
        from lm_eval_ape.harness.samples import gather
        from lm_eval_ape.settings.options import HarnessOptions

        lm = ApeHFLM.create_from_arg_obj(model_args(chunks), {"device": "cpu"})
        options = HarnessOptions(metadata={"pocket_passages": passages})
        tasks = Catalogue(options).load([f"ape_pocket_{tested}_test"])
        rows = gather(lm, tasks, options, num_tokens=8).samples
        meter = Meter(lm, Objective(8, "teacher", "stop"), max_rows=None, cache=self.folder / "cache")
        return list(meter.measure(rows, candidates).kl.T)

    def cost(self) -> Iterator[str]:
        """Seconds of a grid and of fits on the same samples, teachers and encoding included; medians of three."""
        from lm_eval_ape.calibration.options import Options
        from lm_eval_ape.calibration.run import Calibration

        yield "| search | seconds | against the grid | KL on all samples |"
        yield "|---|---:|---:|---:|"
        searches: dict[str, dict[str, Any]] = {
            "grid, 49 points": {"history": "teacher"},
            "model": {"granularity": "model"},
            "head, penalty 0": {"granularity": "head", "penalty": 0},
            "head, penalty by cross-validation": {"granularity": "head"},
        }
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        means = {}
        for _ in range(3):
            for name, given in searches.items():
                method = "gradient" if "granularity" in given else "grid"
                place = self.folder / "cost"
                options = {"model_args": model_args(2), "tasks": "ape_pocket_twohop_calibration", "method": method}
                where = {"output_path": str(place), "cache_path": str(place / f"{time.time_ns()}")}
                found = Calibration(Options.read({**options, **where, **given, "limit": 32})).run()
                seconds[name].append(found.seconds["calibrate"] + found.seconds["gradient"])
                means[name] = found.result.mean_kl
        base = statistics.median(seconds["grid, 49 points"])
        for name, values in seconds.items():
            median = statistics.median(values)
            yield f"| {name} | {median:.1f} | {median / base:.2f} | {means[name]:.4f} |"
        yield f"\nLoad average of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


def _result(found: Mapping[str, Any]) -> tuple[str, str]:
    """What a fit returned, and how much less the finest one's held-out divergence is; nothing for a grid."""
    levels = found.get("levels")
    if not levels:
        return "", ""
    taken = next((level for level in levels if level["taken"]), None)
    less = levels[-1]["less_kl"]
    returned = f"{taken['granularity']}, penalty {taken['penalty']}" if taken else "the start"
    return returned, f"{less['mean']:+.4f} [{less['low']:+.4f}, {less['high']:+.4f}]"


def model_args(chunks: int) -> dict[str, Any]:
    """The shipped model with passages in so many chunks."""
    return {"pretrained": "pocket", "chunking": "passages", "max_chunks": chunks}


def content(place: Path) -> dict[str, Any]:
    """A calibration file."""
    found: dict[str, Any] = json.loads((place / "calibration.json").read_text(encoding="utf-8"))
    return found


def point(found: dict[str, Any]) -> str:
    """T and S."""
    return f"({found['attn_temperature']:.3g}, {found['attn_scale']:.3g})"


def interval(pairs: Any) -> str:
    """A mean paired difference with its interval."""
    from lm_eval_ape.calibration.grid.stability import difference as paired
    from lm_eval_ape.calibration.grid.stability import resample

    found = paired(pairs, np.zeros_like(pairs), resample(len(pairs), RESAMPLES, SEED))
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def difference(found: Difference | None) -> str:
    """A difference of the board, x 100; nothing for the baseline itself."""
    if not found or found.low is None or found.high is None:
        return ""
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("kl", "score", "samples", "positions", "transfer", "cost")
    parser.add_argument("parts", nargs="+", choices=parts, metavar="PART", help=f"tables to make: {', '.join(parts)}")
    parser.add_argument("--output_path", type=Path, required=True, help="folder for everything that is computed")
    parser.add_argument("--chunks", type=int, nargs="+", default=[2, 5], help="(default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of question (default: all)")
    parser.add_argument("--fits", nargs="+", choices=FITS, default=FITS, help="calibrations (default: all)")
    counts = [4, 8, 16, 32, 64]
    parser.add_argument("--samples", type=int, nargs="+", default=counts, help="sizes to fit on (default: %(default)s)")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    chosen = {"chunks": args.chunks, "kinds": args.kinds, "fits": args.fits, "counts": args.samples}
    bench = Bench(args.output_path.resolve(), **chosen)
    for name in args.parts:
        part: Callable[[], Iterator[str]] = getattr(bench, name)
        with redirect_stdout(sys.stderr):
            lines = list(part())
        print("\n".join([f"### {name}\n", *lines, ""]), flush=True)


if __name__ == "__main__":
    main()
