#!/usr/bin/env bash
# All that is open on a GPU, in the order of its worth, and one file with everything to send back:
#
#     make setup             # PyPI's PyTorch for Linux is a CUDA build; install flash-attn too, if it is to be measured
#     benchmarks/gpu.sh
#
#     --output_path DIR   where figures and logs go (default: out/gpu); what is done there is not done again
#     --tiny              the same commands on the CPU at a tiny size, to try the script itself
#
# PYTHON is the interpreter (default: that of make setup). A step that fails is named, the others go on, and the exit
# status says so.
set -uo pipefail

out=out/gpu tiny=
while [ $# -gt 0 ]; do
    case $1 in
        --output_path) out=${2:?--output_path needs a folder}; shift 2 ;;
        --tiny) tiny=yes; shift ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
        *) echo "gpu.sh: there is no option $1; see gpu.sh --help" >&2; exit 2 ;;
    esac
done
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
if ! command -v "$python" > /dev/null; then
    echo "gpu.sh: there is no $python: run make setup first, or set PYTHON to an interpreter with the package" >&2
    exit 2
fi
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$here" || exit
export HF_HUB_OFFLINE=1

failed=()
# step NAME FILE.py FLAGS: one benchmark with its log and its figures.
step() {
    local name=$1 file=$2
    shift 2
    run "$name" "$python" "benchmarks/$file" "$@" --json "$out/$name.json"
}
run() {
    local name=$1
    shift
    [ -e "$out/$name.done" ] && return
    echo "== $name: ${*}"
    if "$@" 2>&1 | tee "$out/$name.log"; then touch "$out/$name.done"; else failed+=("$name"); fi
}

if [ -n "$tiny" ]; then
    common=(--device cpu --dtype float32 --shape tiny --repeats 1)
    model=(--query 4) short=64 middle=64 long=128 new=2 steps=2 samples=1 calls=(--keys 7 --widths 16 --queries 1)
    limit=1 compiler=(--backend eager)
else
    common=(--device cuda --dtype bfloat16 --shape llama-3.1-8b)
    model=() short=8192 middle=32768 long=131072 new=256 steps=8 samples=32 limit=16 compiler=()
    calls=(--keys 1 7 64 1000 8192 131072)
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "gpu.sh: PyTorch finds no CUDA device here; --tiny tries the script on the CPU" >&2
        exit 2
    fi
fi

{ "$python" -c 'import torch; print("PyTorch", torch.__version__, "CUDA", torch.version.cuda)'
  command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  git rev-parse HEAD; } > "$out/machine.txt" 2> /dev/null

# 1. Exactness: every kernel against float64, and the tests that a CPU leaves out.
step kernels attention_kernels.py "${common[@]}" "${calls[@]}"
run tests "$python" -m pytest -q -p no:cacheprovider tests/test_attend.py
# 2. The label-free calibration paper's setting: at most 60 s, then 30 s, on an H200.
step calibration whole_calibration.py "${common[@]}" "${model[@]}" --tokens $short --samples $samples --steps $steps
step grid grid.py "${common[@]}" "${model[@]}" --tokens $short --steps $steps --sampled 1
# 3. APE's headline: 128k tokens, query and generation 256 each, 4.5 times faster than the sequential model.
step end_to_end end_to_end.py "${common[@]}" --tokens $long --chunks 32 --query ${model[1]:-256} --new $new
# 4. Reading, generating, recomputing, kept chunks, selection.
step prefill prefill.py "${common[@]}" "${model[@]}" --tokens $short $middle $long --chunks 4 20
step decode decode.py "${common[@]}" "${model[@]}" --tokens $short $long --new $new
step recompute recompute_cost.py "${common[@]}" "${model[@]}" --tokens $short $middle --selectors query first deviation
step kept stored_chunks.py "${common[@]}" "${model[@]}" --tokens $short $middle
step selection selection.py "${common[@]}" "${model[@]}" --tokens $short --new $new --chunks 16
# 5. Whether torch.compile, with CUDA graphs where it finds them of use, pays.
step compiled compiled.py "${common[@]}" "${model[@]}" --tokens $short --new $new --steps $steps ${compiler[@]+"${compiler[@]}"}
# 6. Whether a dry run can be trusted here.
step dry_run dry_run.py "${common[@]}" --limit $limit --only 4 5

archive=$out.tar.gz
tar -czf "$archive" -C "$(dirname "$out")" "$(basename "$out")"
echo "Everything is in $archive."
if [ ${#failed[@]} -gt 0 ]; then
    echo "These failed, their words are in $out/NAME.log: ${failed[*]}" >&2
    exit 1
fi
