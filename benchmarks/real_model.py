"""What parallel encoding does to a real model: SmolLM2-135M-Instruct on LongBench, TREC, BANKING77 and made-up tasks.

    lm-eval-ape fetch smollm2
    python benchmarks/real_model.py --data DIR --output_path out/real > tables.md

Every part is a few commands of lm-eval-ape, each in a folder of its own under `--output_path`, and the tables that are
read off their files. What is finished is not run again; what was interrupted goes on. DIR holds `longbench/` (as
`longbench_dir` reads it, 2wikimqa at least) and `fewshot/` (as `fewshot_dir` reads it). Intervals are 95% bootstrap
intervals of paired differences. Hours on two cores with the default sizes; `--threads 1` beside another one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flags import positive

if TYPE_CHECKING:
    from lm_eval_ape.artefacts.board import Board, Difference
    from lm_eval_ape.artefacts.calibration import Calibration

RESAMPLES = "9999"
# Five chunks of 250 tokens by BM25, as retrieval would give them.
RETRIEVED = "chunk_tokens=250,retriever=bm25,max_chunks=5"
# Which parts of APE earn what, selection, and recomputation; then the same keys at their places in the text.
STRATEGIES = (
    "sequential",
    "parallel",
    "sink",
    "ape",
    "ape[attn_scale=1]",
    "ape[attn_temperature=1]",
    "selective",
    "sink+selective",
    "parallel[positions=serial]",
    "sink[positions=serial]",
    "ape[positions=serial]",
    "epic",
    "cacheblend",
    "recompute",
    "infoflow",
    "recompute[recompute=0.15]",
    "recompute[recompute=0.15,recompute_by=random]",
)
SELECTORS = ("query", "first", "deviation", "random")
SHARES = ("0.05", "0.15", "0.3")
FEWSHOT = ("trec", "banking77")
# Of which positions are measured against the length of chunks.
PLACED = ("sink", "sink[positions=serial]", "recompute[recompute=0.15]")
# Tasks that need no data, at a size that a small model and a laptop can bear.
MADE_UP: Mapping[str, Mapping[str, Any]] = {
    "keyvalue": {"keyvalue_pairs": 25},
    "needle": {"needle_words": 1000},
    "perplexity": {"perplexity_path": "python", "perplexity_tokens": 1500, "perplexity_query_tokens": 200},
}
WIKI = "ape_longbench_2wikimqa"
WIDE = "0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.4"


class Bench:
    """Commands that are run once, and the tables that are read off what they wrote.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder: Path = args.output_path

    def run(self, name: str, subcommand: str, options: Mapping[str, Any]) -> Iterator[str]:
        """Run a command unless it is finished; yields it as a block of Markdown."""
        from lm_eval_ape.storage.files import write_text

        place = self.folder / name
        words = [subcommand]
        for option, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                words.append(f"--{option}")
                if one is not True:
                    words.append(one if isinstance(one, str) else json.dumps(one))
        words += ["--output_path", str(place)]
        done = place / "finished.json"
        if not done.exists() or json.loads(done.read_text(encoding="utf-8")) != words:
            print(f"== {shlex.join(words)}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "lm_eval_ape", *words]
            if status := subprocess.run(command, stdout=sys.stderr, check=False).returncode:
                sys.exit(f"{name} ended with status {status}; its own words stand above. Start again to go on.")
            write_text(done, json.dumps(words))
        yield f"    lm-eval-ape {shlex.join(words)}".replace(str(self.args.data), "DIR")
        yield ""

    def compare(self, name: str, tasks: Sequence[str], strategies: Sequence[str], **options: Any) -> Iterator[str]:
        """Run a comparison."""
        given = {
            "tasks": ",".join(tasks),
            "strategies": ",".join(strategies),
            "resamples": RESAMPLES,
            "batch_size": "8",
        }
        yield from self.run(name, "compare", {**given, **options})

    def board(self, name: str) -> Board:
        """What a comparison wrote."""
        from lm_eval_ape.artefacts import board_file

        return board_file.read(self.folder / name / board_file.FILE_NAME)

    def calibration(self, name: str) -> Calibration:
        """What a calibration wrote."""
        from lm_eval_ape.artefacts import calibration_file

        return calibration_file.read(self.folder / name)

    def model(self, cut: str, *, kept: bool = False, dtype: str | None = None) -> str:
        """Model arguments; with `kept`, strategies share chunks that are encoded alike."""
        words = [self.args.model_args, f"dtype={dtype or self.args.dtype}", cut]
        return ",".join(filter(None, [*words, f"kv_cache_bytes={self.args.keep}" if kept else ""]))

    def fewshot(self, examples: int, cut: str, *, dtype: str | None = None, **more: Any) -> dict[str, Any]:
        """A few-shot task's options, and more metadata."""
        data = {"fewshot_dir": str(self.args.data / "fewshot"), "fewshot_examples": examples, **more}
        return {"model_args": self.model(cut, kept=True, dtype=dtype), "metadata": data}

    def wiki(self, **changes: Any) -> dict[str, Any]:
        """Options of 2WikiMultihopQA."""
        data = {"longbench_dir": str(self.args.data / "longbench")}
        model = {"model_args": self.model(RETRIEVED, kept=True), "metadata": data}
        return {**model, "apply_chat_template": True, **changes}

    def protocol(self) -> Iterator[str]:
        """The paper's protocol on 2wikimqa: what (T, S) is chosen, how much it is worth, and how stable it is."""
        runs: dict[str, dict[str, Any]] = {
            "25 points, K=1": {"num_tokens": 1, "with_labels": True, "metric": "answer_nats"},
            "49 points, K=8, own": {"history": "own"},
            "49 points, K=8, teacher": {"history": "teacher"},
            "100 points, K=8, teacher": {"history": "teacher", "temperatures": WIDE, "scales": WIDE},
        }
        names = {title: f"protocol/{number}" for number, title in enumerate(runs)}
        for title, options in runs.items():
            shared = self.wiki(model_args=self.model(f"strategy=ape,{RETRIEVED}", kept="with_labels" in options))
            yield from self.run(
                names[title],
                "calibrate",
                {
                    **shared,
                    "tasks": f"{WIKI}_calibration",
                    "limit": self.args.samples,
                    "cache_path": self.cache,
                    **options,
                },
            )
        yield "| grid | n | chosen (T, S) | edge | KL | more at (0.9, 0.9) | more at (1, 1) | T only | S only |"
        yield "|---|---:|---|---|---:|---:|---:|---:|---:|"
        for title, name in names.items():
            found = self.calibration(name)
            choice, beats = found.choice, found.stability.beats
            yield (
                f"| {title} | {len(found.samples)} | {pair(choice)} | {', '.join(choice.edges)} | {choice.mean_kl:.4f} "
                f"| {nats(beats.default)} | {nats(beats.neutral)} "
                f"| {pair(choice.temperature_only)} {choice.temperature_only.mean_kl:.4f} "
                f"| {pair(choice.scale_only)} {choice.scale_only.mean_kl:.4f} |"
            )
        yield ""
        yield "| grid | range over T at S=0.9 | over S at T=0.9 | T of resamples | S of resamples |"
        yield "|---|---:|---:|---|---|"
        for title, name in names.items():
            found = self.calibration(name)
            ranges, stable = (found.choice.over_temperature, found.choice.over_scale), found.stability
            widths = " | ".join(
                f"{one.low:g} to {one.high:g}, {'stable' if one.stable else 'not stable'}"
                for one in (stable.temperature, stable.scale)
            )
            yield f"| {title} | {ranges[0].range:.4f} | {ranges[1].range:.4f} | {widths} |"
        yield ""
        yield from self.labelled(self.calibration(names["25 points, K=1"]))

    def compared(self) -> Iterator[str]:
        """How a choice and its interval change with the tokens that are compared, and with the samples."""
        sets: dict[str, dict[str, Any]] = {
            "the next token": {"num_tokens": 1},
            "8 new tokens": {},
            "64 new tokens": {"num_tokens": 64},
            "the query's tokens": {"positions": "query"},
            "the query's and 8 new tokens": {"positions": "both"},
        }
        yield "| compared | n | chosen (T, S) | KL | more at (0.9, 0.9) | T of resamples | S of resamples |"
        yield "|---|---:|---|---:|---:|---|---|"
        lines, blocks = [], []
        for number, (title, options) in enumerate(sets.items()):
            for samples in sorted({self.args.few_samples, self.args.samples}, reverse=True):
                name = f"compared/{number}-{samples}"
                shared = self.wiki(model_args=self.model(f"strategy=ape,{RETRIEVED}"), history="teacher")
                limits = {"tasks": f"{WIKI}_calibration", "limit": samples, "cache_path": self.cache}
                blocks += [*self.run(name, "calibrate", {**shared, **limits, **options})]
                found = self.calibration(name)
                spread = (found.stability.temperature, found.stability.scale)
                widths = " | ".join(f"{one.low:g} to {one.high:g}" for one in spread)
                lines.append(
                    f"| {title} | {len(found.samples)} | {pair(found.choice)} | {found.choice.mean_kl:.4f} "
                    f"| {nats(found.stability.beats.default)} | {widths} |"
                )
        yield from lines
        yield ""
        yield from blocks

    @staticmethod
    def labelled(found: Calibration) -> Iterator[str]:
        """What labels say of a grid, and its choices on rows that they were not made on."""
        labels, test = found.labels, found.test
        assert labels is not None
        assert test is not None
        yield f"| choice | T, S | KL, {test.samples} other rows | more than chosen | answer, nats | less than chosen |"
        yield "|---|---|---:|---:|---:|---:|"
        for row in test.rows:
            score = "" if row.score is None else f"{row.score:.3f}"
            less = "" if row.less_score_than_chosen is None else nats(row.less_score_than_chosen)
            point = f"{row.point.temperature:g}, {row.point.scale:g}"
            yield f"| {row.name} | {point} | {row.mean_kl:.4f} | {nats(row.more_kl_than_chosen)} | {score} | {less} |"
        yield ""
        yield f"| signal | rho with the answer's log-likelihood, {labels.documents} rows |"
        yield "|---|---:|"
        for one in labels.signals:
            if one.average == "mean" and one.rho is not None:
                yield f"| {one.signal} | {one.rho:+.2f} [{one.low:+.2f}, {one.high:+.2f}] |"

    def retrieved(self) -> Iterator[str]:
        """Strategies on 2wikimqa: KL, F1 and the log-likelihood of the answer."""
        task = f"{WIKI}_test"
        more = {"kl_tokens": 8, "answer_nats": True, "limit": self.args.rows}
        yield from self.compare("retrieved", [task], STRATEGIES, **self.wiki(**more))
        yield from table(self.board("retrieved"), task)

    def fewshots(self) -> Iterator[str]:
        """Strategies on few-shot classification, against the number of chunks."""
        for task, examples in zip(FEWSHOT, self.args.examples, strict=True):
            if task not in self.args.fewshot_tasks:
                continue
            for chunks in self.args.chunks:
                name, full = f"fewshot/{task}-{chunks}", f"ape_fewshot_{task}_test"
                more = {"limit": self.args.rows, "kl_tokens": 2}
                yield from self.compare(
                    name, [full], self.args.strategies, **self.fewshot(examples, f"chunks={chunks}"), **more
                )
                yield from table(self.board(name), full)
                yield ""

    def longer(self) -> Iterator[str]:
        """Accuracy on TREC against the number of examples, in four chunks."""
        few = ("sequential", "parallel", "sink", "ape", "sink[positions=serial]", "recompute[recompute=0.15]")
        for examples in self.args.more_examples:
            name = f"longer/{examples}"
            more = {"limit": self.args.few_rows, "kl_tokens": 2}
            yield from self.compare(name, ["ape_fewshot_trec_test"], few, **self.fewshot(examples, "chunks=4"), **more)
            yield from table(self.board(name), "ape_fewshot_trec_test")
            yield ""

    def positions(self) -> Iterator[str]:
        """Positions on few-shot prompts against the length of chunks, labels named in the prefix or not."""
        words = {"limit": self.args.search_samples, "num_tokens": "2", "history": "teacher", "no-race": True}
        points = {"temperatures": "1.0", "scales": "1.0", "cache_path": self.cache}
        search = {"candidates": ",".join(PLACED), "search": f"chunks={','.join(map(str, self.args.chunks))}"}
        for task, examples in zip(FEWSHOT, self.args.examples, strict=True):
            if task not in self.args.fewshot_tasks:
                continue
            found: dict[str, str] = {}
            for named in (False, True):
                name = f"positions/{task}-{'named' if named else 'not-named'}"
                options = self.fewshot(examples, "", dtype="float32", fewshot_name_labels=named)
                asked = {"tasks": f"ape_fewshot_{task}_calibration", **words, **points, **search}
                yield from self.run(name, "calibrate", {**options, **asked})
                frontier = self.calibration(name).frontier
                assert frontier is not None
                for one in frontier.candidates:
                    assert one.best is not None
                    low, high = one.best.interval.low, one.best.interval.high
                    found[f"{one.name} {named}"] = f"{one.best.value:.3f} [{low:.3f}, {high:.3f}]"
            encodings = [name.removesuffix("]").split("[") for name in PLACED]
            yield f"| {task}, chunks | " + " | ".join(f"`{name}` | labels named" for name in PLACED) + " |"
            yield "|---:|" + "---:|" * 2 * len(PLACED)
            for chunks in self.args.chunks:
                labels = [f"{name}[{','.join([*own, f'chunks={chunks}'])}]" for name, *own in encodings]
                cells = [found[f"{label} {named}"] for label in labels for named in (False, True)]
                yield f"| {chunks} | {' | '.join(cells)} |"
            yield ""

    def made_up(self) -> Iterator[str]:
        """Strategies on texts that need no data: key-value pairs, needles, and perplexity."""
        for task, metadata in MADE_UP.items():
            name, full = f"made-up/{task}", f"ape_{task}_test"
            options = {"model_args": self.model("chunks=4", kept=True), "limit": self.args.few_rows}
            yield from self.compare(name, [full], self.args.strategies, **options, metadata=metadata)
            yield from table(self.board(name), full)
            yield ""

    def recomputation(self) -> Iterator[str]:
        """A search over positions and recomputation on 2wikimqa: KL and cost by share and selector."""
        search = ["positions=shared,serial", f"recompute=0,{','.join(SHARES)}", f"recompute_by={','.join(SELECTORS)}"]
        options = self.wiki(model_args=self.model(RETRIEVED, dtype="float32"))
        words = {"tasks": f"{WIKI}_calibration", "limit": self.args.search_samples, "history": "teacher"}
        shared = {"candidates": "sink", "search": search, "no-race": True, "cache_path": self.cache}
        yield from self.run("recomputation", "calibrate", {**options, **words, **shared})
        found = self.calibration("recomputation").frontier
        assert found is not None
        yield "| encoding | T, S | cost | seconds | mean KL | more than the chosen one | frontier |"
        yield "|---|---|---:|---:|---:|---:|---|"
        for one in found.candidates:
            best = one.best
            assert best is not None
            mark = "chosen" if one.name == found.chosen else "yes" if one.frontier else ""
            seconds = "" if one.seconds is None else f"{one.seconds:.2f}"
            yield (
                f"| `{one.name}` | {pair(best)} | {one.share:.3f} | {seconds} | {best.value:.4f} "
                f"[{best.interval.low:.4f}, {best.interval.high:.4f}] | {nats(best.more_than_chosen)} | {mark} |"
            )
        yield f"\n{found.measurements} prompts were read under an encoding, of {found.of}."

    def gradient(self) -> Iterator[str]:
        """T and S of each head, and what the guard says of them on prompts that no fit saw."""
        yield "| samples | granularity | returned | held out: less than the start | held out | unseen prompts |"
        yield "|---:|---|---|---:|---:|---:|"
        lines, blocks = [], []
        for samples in self.args.fit_samples:
            name = f"gradient/{samples}"
            options = self.wiki(model_args=self.model(f"strategy=sink,{RETRIEVED}", dtype="float32"))
            fit = {"method": "grid+gradient", "temperatures": "1.0", "scales": "0.9", "steps": "8", "penalty": "auto"}
            shared = {"tasks": f"{WIKI}_calibration", "test_tasks": f"{WIKI}_test", "test_limit": self.args.rows}
            more = {"folds": "2", "limit": samples, "cache_path": self.cache}
            blocks += [*self.run(name, "calibrate", {**options, **shared, **fit, **more})]
            found = self.calibration(name)
            assert found.gradient is not None
            assert found.test is not None
            rows = {row.name: row for row in found.test.rows}
            for level in found.gradient.levels:
                unseen = ""
                if level.taken:
                    ends = f"{rows['start'].mean_kl:.4f} to {rows['chosen'].mean_kl:.4f}"
                    unseen = f"{ends}: {nats(rows['start'].more_kl_than_chosen)} less"
                lines.append(
                    f"| {samples} | {level.granularity}, penalty {level.penalty} | {'yes' if level.taken else 'no'} "
                    f"| {nats(level.less_kl)} | {level.start_kl:.4f} to {level.mean_kl:.4f} | {unseen} |"
                )
        yield from lines
        yield ""
        yield from blocks

    def transfer(self) -> Iterator[str]:
        """How much KL a (T, S) chosen on one task, length or number of chunks costs on another."""
        from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point

        places: dict[str, dict[str, Any]] = {"2wikimqa, 5 x 250": {**self.wiki(), "tasks": f"{WIKI}_calibration"}}
        few, many = self.args.examples[0], self.args.more_examples[0]
        for task, examples, chunks in (
            ("trec", few, 2),
            ("trec", few, 8),
            ("trec", many, 4),
            ("banking77", self.args.examples[1], 4),
        ):
            options = {**self.fewshot(examples, f"chunks={chunks}"), "tasks": f"ape_fewshot_{task}_calibration"}
            places[f"{task}, {examples} examples, {chunks} chunks"] = options
        found = {}
        for number, (title, options) in enumerate(places.items()):
            limits = {"limit": self.args.samples, "history": "teacher", "cache_path": self.cache}
            yield from self.run(f"transfer/{number}", "calibrate", {**options, **limits})
            found[title] = self.calibration(f"transfer/{number}")
        yield f"| chosen on | (T, S) | {' | '.join(found)} |"
        yield f"|---|---|{'---:|' * len(found)}"
        chosen = {"(untuned)": NEUTRAL, "(the default)": DEFAULT}
        chosen |= {name: Point(one.choice.attn_temperature, one.choice.attn_scale) for name, one in found.items()}
        for name, point in chosen.items():
            cells = [f"{one.grid.mean_kl[one.grid.points.index(point)]:.4f}" for one in found.values()]
            yield f"| {name} | {point[0]:g}, {point[1]:g} | {' | '.join(cells)} |"

    def numerics(self) -> Iterator[str]:
        """The same calibration in other precisions."""
        from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL

        names = {}
        for dtype in ("float32", "bfloat16", "float16"):
            names[dtype] = f"numerics/{dtype}"
            options = self.wiki(model_args=self.model(f"strategy=ape,{RETRIEVED}", dtype=dtype))
            limits = {"limit": self.args.few_samples, "history": "teacher", "cache_path": self.cache}
            yield from self.run(names[dtype], "calibrate", {**options, "tasks": f"{WIKI}_calibration", **limits})
        yield "| precision | chosen (T, S) | KL | (0.9, 0.9) | (1, 1) |"
        yield "|---|---|---:|---:|---:|"
        for dtype, name in names.items():
            one = self.calibration(name)
            means = dict(zip(one.grid.points, one.grid.mean_kl, strict=True))
            cells = f"{means[DEFAULT]:.4f} | {means[NEUTRAL]:.4f}"
            yield f"| {dtype} | {pair(one.choice)} | {one.choice.mean_kl:.4f} | {cells} |"

    def attention(self) -> Iterator[str]:
        """Attention entropy against the number of chunks, and whether it goes with the score."""
        options = {**self.fewshot(self.args.examples[0], "chunks=1"), "limit": self.args.few_rows}
        options["model_args"] = self.model("")
        more = {"probe_limit": self.args.probe, "chunks": ",".join(map(str, self.args.chunks))}
        yield from self.run("attention", "analyze", {"tasks": "ape_fewshot_trec_test", **options, **more})
        yield from (self.folder / "attention" / "analysis.md").read_text(encoding="utf-8").splitlines()

    @property
    def cache(self) -> str:
        """Teachers and divergences, which all calibrations share."""
        return str(self.folder / "cache")


def pair(found: Any) -> str:
    """T and S."""
    return f"{found.attn_temperature:g}, {found.attn_scale:g}"


def nats(found: Any) -> str:
    """A paired difference in nats with its interval."""
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def difference(found: Difference | None, times: float, digits: int) -> str:
    """A difference from the baseline with its interval."""
    if found is None or found.low is None or found.high is None:
        return ""
    mean, low, high = (f"{times * value:+.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"


def divergences(board: Board, task: str) -> dict[str, Any]:
    """Each row's divergences by document, the mean over each one's tokens, of the documents that all rows have."""
    import numpy as np

    found: dict[str, list[float]] = {row.label: [] for row in board.rows if row.tasks[task].kl}
    for sample in board.samples[task]:
        answers = {label: sample.runs[label].kl for label in found}
        for label, prompts in answers.items():
            if prompts and all(answers.values()):
                found[label].append(float(np.mean(prompts[0].nats)))
    return {label: np.array(values) for label, values in found.items()}


def table(board: Board, task: str) -> Iterator[str]:
    """A board's rows in one task: score and difference, KL and how much less than `sink`, what else there is of it."""
    from lm_eval_ape.calibration.grid.stability import difference as paired
    from lm_eval_ape.calibration.grid.stability import resample

    metric, nats_of = board.tasks[task], divergences(board, task)
    answers = any(row.tasks[task].answer_nats for row in board.rows)
    shown: list[Any] = [(row.tasks[task].reported or {}).get("shown_label,none") for row in board.rows]
    times, digits = (1, 3) if metric.metric == "nats_per_token" else (100, 1)
    head = f"| {task}, n = {metric.documents} | {metric.metric} | difference | KL | less KL than `sink` |"
    labels = None not in shown
    yield head + (" a shown label |" if labels else "") + (" answer, nats | difference |" if answers else "")
    yield "|---|---:|---:|---:|---:|" + ("---:|" if labels else "") + ("---:|---:|" if answers else "")
    for row, share in zip(board.rows, shown, strict=True):
        score, own, sink = row.tasks[task], nats_of.get(row.label), nats_of.get("sink")
        cells = [f"{times * score.score:.{digits}f}", difference(score.difference, times, digits)]
        cells.append("" if score.kl is None else f"{score.kl.mean:.4f}")
        if own is None or sink is None or row.label == "sink":
            cells.append("")
        else:
            cells.append(nats(paired(sink, own, resample(len(own), int(RESAMPLES), 1234))))
        if labels:
            cells.append(f"{100 * share:.1f}")
        if answer := score.answer_nats:
            cells += [f"{answer.mean:.3f}", difference(answer.difference, 1, 3)]
        yield f"| `{row.label}` | {' | '.join(cells)} |"


PARTS = (
    *("retrieved", "recomputation", "fewshots", "longer", "positions", "made_up", "attention"),
    *("protocol", "compared", "transfer", "gradient", "numerics"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"tables to make: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--data", type=Path, required=True, help="folder with longbench/ and fewshot/")
    parser.add_argument("--output_path", type=Path, required=True, help="folder for everything that is computed")
    parser.add_argument("--model_args", default="pretrained=smollm2", help="the model (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="bfloat16",
        help="precision, but for small divergences, fits and precisions themselves (default: %(default)s)",
    )
    parser.add_argument("--rows", type=positive, default=100, help="test rows (default: %(default)s)")
    parser.add_argument("--few_rows", type=positive, default=50, help="of the longer ones (default: %(default)s)")
    parser.add_argument("--samples", type=positive, default=32, help="calibration samples (default: %(default)s)")
    parser.add_argument("--search_samples", type=positive, default=16, help="for a search (default: %(default)s)")
    parser.add_argument("--few_samples", type=positive, default=8, help="for precisions (default: %(default)s)")
    parser.add_argument("--fit_samples", type=positive, nargs="+", default=[16, 32], help="to fit heads on")
    parser.add_argument("--probe", type=positive, default=8, help="prompts whose attention is looked at")
    parser.add_argument(
        "--examples", type=positive, nargs=2, default=[40, 77], help="of few-shot prompts of TREC and of BANKING77"
    )
    parser.add_argument("--fewshot_tasks", choices=FEWSHOT, nargs="+", default=FEWSHOT, help="(default: both)")
    parser.add_argument(
        "--strategies", nargs="+", default=STRATEGIES, metavar="NAME", help="of fewshots and made_up (default: all 17)"
    )
    parser.add_argument("--more_examples", type=positive, nargs="+", default=[80, 160, 280], help="of longer ones")
    parser.add_argument("--chunks", type=positive, nargs="+", default=[2, 4, 8, 16], help="(default: %(default)s)")
    parser.add_argument("--keep", default="6GiB", help="memory for encoded chunks, shared by strategies")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: PyTorch's own choice)")
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    for name in ("longbench", "fewshot"):
        if not (args.data / name).is_dir():
            parser.error(f"--data {args.data} has no folder {name}")
    args.output_path, args.data = args.output_path.resolve(), args.data.resolve()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    bench = Bench(args)
    for name in args.parts or PARTS:
        lines = [f"### {name}", "", *getattr(bench, name)(), ""]
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
