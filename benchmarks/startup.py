"""What the start-up hook costs a Python program that never imports lm_eval.

Starts the interpreter again and again, in turn with the hook's line and without, in isolated mode, so that nothing else
that is installed takes part. Prints medians and spreads, and writes them as JSON if asked.

    python benchmarks/startup.py --runs 200 --json out/startup.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOOK = (REPOSITORY / "lm_eval_ape.pth").read_text(encoding="utf-8").strip()


def start(code: str) -> float:
    """Milliseconds from starting an interpreter with this code to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    return (time.perf_counter() - began) * 1e3


def inside(setup: str, code: str) -> float:
    """Milliseconds that the code alone takes in a fresh interpreter, after the setup."""
    timed = f"{setup}; import time; began = time.perf_counter(); {code}; print(time.perf_counter() - began)"
    out = subprocess.run([sys.executable, "-I", "-S", "-c", timed], check=True, capture_output=True, text=True)
    return float(out.stdout) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, default=100, help="interpreters started of each kind (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    path = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})"
    kinds = {"without the hook": path, "with the hook": f"{path}; {HOOK}"}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    own: list[float] = []
    for _ in range(args.runs):
        for name, code in kinds.items():
            times[name].append(start(code))
        own.append(inside(path, HOOK))
    paired = [b - a for a, b in zip(*times.values(), strict=True)]
    rows = {**times, "difference of a pair": paired, "the hook's line itself": own}
    table = {
        name: dict(zip(("p25", "median", "p75"), statistics.quantiles(values, n=4), strict=True))
        for name, values in rows.items()
    }
    print(f"{args.runs} runs of each, Python {sys.version.split()[0]}")
    print(f"{'milliseconds':24}{'p25':>8}{'median':>8}{'p75':>8}")
    for name, row in table.items():
        print(f"{name:24}" + "".join(f"{row[key]:8.2f}" for key in ("p25", "median", "p75")))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"runs": args.runs, "python": sys.version, "milliseconds": table}, indent=2))


if __name__ == "__main__":
    main()
