#!/usr/bin/env bash
# All that takes a GPU, in less than eight minutes, from a checkout: the package need not be installed. A stage ends at
# its time limit, and the next one begins whatever became of it; the logs and a summary are in the folder OUT.
#
#     OUT=folder bash tests/device/on_gpu.sh
#
# Takes CuPy, pytest, pytest-xdist, hypothesis and threadpoolctl; PyTorch and compute-sanitizer are used where they are
# there. PYTHON is the interpreter (default: python). With MINITRANSFORMER_STAND_IN=1 the script is tried without a GPU,
# on the stand-in for CuPy: then all that takes CUDA itself is left out, and the limits are three times as long.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
python=${PYTHON:-$(command -v python || command -v python3)}
stand_in=${MINITRANSFORMER_STAND_IN:-}
out=${OUT:-runs/on_gpu}
mkdir -p "$out" && out=$(cd "$out" && pwd) && : >"$out/summary.txt" || exit
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
worst=0

stage() { # NAME SECONDS COMMAND ...
    local name=$1 limit=$(($2 * (${#stand_in} > 0 ? 3 : 1))) began=$SECONDS status said
    shift 2
    echo "== $name, at most $limit s: $*"
    timeout --signal=INT --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    tail -n 30 "$out/$name.log" | cut -c -200
    case $status in
    0) said=passed ;;
    124 | 137) said="not finished" ;;
    *) said="FAILED, status $status" ;;
    esac
    [ $status -eq 0 ] || worst=1
    printf '%-10s %-20s %3s s\n' "$name" "$said" $((SECONDS - began)) >>"$out/summary.txt"
}

left_out() { # NAME WHY
    echo "== $1: left out, $2"
    printf '%-10s left out: %s\n' "$1" "$2" >>"$out/summary.txt"
}

on_the_gpu="-m gpu -W default -p no:cacheprovider -q -ra --durations=10 tests/device/test_gpu.py"
stage versions 35 "$python" tests/device/on_gpu.py versions
# shellcheck disable=SC2086
stage tests 100 "$python" -m pytest -n "$([ -n "$stand_in" ] && echo 2 || echo 6)" $on_the_gpu -k "not task and not memory"
if [ -n "$stand_in" ]; then
    left_out runs "the stand-in has no memory to run out of, and is too slow to learn a task"
    left_out memcheck "the stand-in has no CUDA"
    left_out speed "the stand-in has no CUDA"
else
    # shellcheck disable=SC2086
    stage runs 95 "$python" -m pytest -n 4 $on_the_gpu -k "task or memory"
    if command -v compute-sanitizer >/dev/null; then
        stage memcheck 45 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" tests/device/on_gpu.py kernels
    else
        left_out memcheck "compute-sanitizer is not installed"
    fi
    if "$python" -c "import importlib.util as u; exit(u.find_spec('torch') is None)"; then
        stage speed 120 "$python" tests/benchmarks/gpu.py a g --rounds 4 --dropout 0.1 --json "$out/speed.json"
    else
        left_out speed "PyTorch is not installed"
    fi
fi
stage products 20 "$python" tests/device/on_gpu.py products
stage host 20 "$python" tests/device/on_gpu.py host

card=$(sed -n 's/^card: //p' "$out/versions.log")
echo "== on ${card:-no card}, in $SECONDS s; the logs are in $out"
cat "$out/summary.txt"
exit $worst
