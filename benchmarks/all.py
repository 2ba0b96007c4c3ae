"""All benchmarks one after the other, their tables in one Markdown file and their figures in a JSON file each.

    python benchmarks/all.py --output_path out/benchmarks               # two minutes
    python benchmarks/all.py --full --output_path out/benchmarks        # twenty minutes on two quiet cores

A benchmark that fails is named and the others go on; the exit status says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
QUICK = {
    "startup": "",
    "prefill": "--tokens 1024 --chunks 4 --repeats 1",
    "decode": "--tokens 1024 --new 8 --repeats 1",
    "grid": "--tokens 1024 --sampled 2 --repeats 1",
    "whole_calibration": "--tokens 1024 --samples 1 --repeats 1",
    "stored_chunks": "--tokens 1024 --repeats 1",
    "selection": "--tokens 1024 --new 4 --repeats 1",
    "harness_run": "--words 120 --rows 3 --repeats 1",
    "end_to_end": "--tokens 1024 --new 8 --repeats 1",
    "compiled": "--tokens 1024 --repeats 1",
    "recompute_cost": "--tokens 1024 --repeats 1",
    "dry_run": "--limit 4 --only 1 5",
    "attention_kernels": "--keys 7 1000 --queries 17 --widths 64",
}
FULL = {
    "startup": "",
    "prefill": "--tokens 2048 4096 8192 16384 32768 --chunks 2 4 8 20 --repeats 2",
    "decode": "--tokens 1024 4096 8192 --repeats 5",
    "grid": "--tokens 4096 8192 --sampled 2 --repeats 2",
    "whole_calibration": "--tokens 4096 8192 --repeats 2",
    "stored_chunks": "--tokens 4096 8192",
    "selection": "--tokens 4096 8192",
    "harness_run": "",
    "end_to_end": "--tokens 8192 --repeats 2",
    "compiled": "--tokens 1024 4096 --repeats 5",
    "recompute_cost": "--tokens 4096 8192 16384 --selectors query first deviation",
    "dry_run": "--limit 16 --repeats 2",
    "attention_kernels": "--keys 1 7 64 1000 8192",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the sizes of docs/results/performance.md")
    parser.add_argument("--only", nargs="+", choices=list(FULL), default=list(FULL), help="some benchmarks alone")
    parser.add_argument("--output_path", type=Path, default=Path("out/benchmarks"), help="(default: %(default)s)")
    args = parser.parse_args()
    args.output_path.mkdir(parents=True, exist_ok=True)
    flags = {name: words.split() for name, words in (FULL if args.full else QUICK).items()}
    parts, failed = [], []
    for name in args.only:
        file = args.output_path / f"{name}.json"
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            *flags[name],
            *([] if name == "startup" else ["--json", file]),
        ]
        started = perf_counter()
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, f"[{name}: {perf_counter() - started:.0f} s]\n", flush=True)
        if done.returncode:
            failed.append(name)
        elif name == "startup":
            parts.append(f"### Start-up\n\n    python benchmarks/startup.py\n\n```\n{done.stdout.strip()}\n```\n")
        else:
            parts.append(_part(name, flags[name], json.loads(file.read_text(encoding="utf-8"))))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    text = f"Made by `python benchmarks/all.py{' --full' if args.full else ''}`, {now}.\n\n" + "\n".join(parts)
    (args.output_path / "tables.md").write_text(text, encoding="utf-8")
    if failed:
        print(f"These benchmarks failed: {', '.join(failed)}.", file=sys.stderr)
    return bool(failed)


def _part(name: str, flags: list[str], content: dict) -> str:
    lines = [
        f"### {name.replace('_', ' ').capitalize()}",
        "",
        f"    python benchmarks/{name}.py {' '.join(flags)}".rstrip(),
        "",
    ]
    for table in content["tables"]:
        lines += [table["title"] + ".", "", f"| {' | '.join(table['headers'])} |", "|---" * len(table["headers"]) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in table["rows"]] + [""]
    machine = content["machine"]
    load = "" if machine["load_average"] is None else f", load average {machine['load_average']:.1f} at the end"
    lines.append(f"{machine['device']}, {machine['threads']} threads, PyTorch {machine['torch']}{load}.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
