#!/usr/bin/env bash
# gpu_check.sh [--out FOLDER]: everything that needs a GPU, in one command.
#
# In a checkout it builds what it needs (bundle.sh); in a bundle it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<EOF
usage: gpu_check.sh [--out FOLDER] [--model-folder FOLDER] [--quick]

Runs the kernel tests on the GPU, under compute-sanitizer too where it is
installed, and whole steps of models beside the CPU; times the kernels beside a
kernel that only reads and, where python3 has PyTorch, beside its attention;
times steps of a model of Llama-3.1-8B's shape, and PyTorch's of the same; and
writes FOLDER/gpu_check.json and FOLDER/gpu_check.md. Takes some four minutes,
and three to build in a checkout.

  --out FOLDER   where to write. Default: build/gpu-check, or here in a bundle
  --model-folder FOLDER
                 where there is room for 16 GiB of random weights. Default:
                 /dev/shm
  --quick        no compute-sanitizer, no PyTorch, no large model
EOF
}

out=
model_folder=
quick=
while (($# > 0)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --out) out=$2 && shift 2 ;;
    --model-folder) model_folder=$2 && shift 2 ;;
    --quick) quick=1 && shift ;;
    *) usage >&2 && exit 2 ;;
  esac
done

if [[ -x $here/kernel_gpu_test ]]; then
  bundle=$here
  out=${out:-$here}
else
  cd "$here/.."
  bundle=build/gpu-bundle
  out=${out:-build/gpu-check}
  scripts/bundle.sh native
fi
mkdir -p "$out"
export LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

command -v nvidia-smi >/dev/null || {
  echo "gpu_check.sh: no nvidia-smi: this machine has no NVIDIA driver" >&2
  exit 3
}
failed=0
run() { # NAME COMMAND...: keeps the output; what fails is shown
  local name=$1 status=0
  shift
  printf '%s ... ' "$name" >&2
  "$@" >"$out/$name.log" 2>&1 || status=$?
  if ((status == 0)); then
    echo ok >&2
  else
    echo "failed ($status)" >&2
    tail -n 40 "$out/$name.log" >&2
    failed=1
  fi
}

rm -f "$out"/*.log "$out"/*.jsonl # of another time
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total \
  --format=csv,noheader >"$out/gpu.log"
run tests "$bundle/kernel_gpu_test"
HEADCOUNT_GOLDEN_DIR=$bundle/golden run steps "$bundle/step_gpu_test"
run benchmark "$bundle/kernel_gpu_benchmark" --json "$out/benchmark.jsonl"
if [[ -z $quick ]]; then
  model=$(mktemp -d "${model_folder:-/dev/shm}/headcount-8b-XXXX")
  trap 'rm -rf "$model"' EXIT
  run make_model python3 "$bundle/make_model.py" "$model"
  run model "$bundle/step_gpu_benchmark" "$model" 1
  grep '^{' "$out/model.log" >"$out/model.jsonl" || true
fi
if [[ -z $quick ]]; then
  if command -v compute-sanitizer >/dev/null; then
    # Each looks at every access: a few cases of each kernel.
    cases='*.SplitBehindALongPast:*.StaticScales:*.Windows:KvWriteTest.*'
    for tool in memcheck racecheck synccheck; do
      run "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$bundle/kernel_gpu_test" --gtest_filter="$cases"
    done
  fi
  if python3 -c 'import torch' 2>/dev/null; then
    run pytorch python3 "$bundle/sdpa_baseline.py" "$out/pytorch.jsonl"
    run pytorch_model python3 "$bundle/model_baseline.py" \
      "$out/pytorch_model.jsonl"
  fi
fi
python3 "$bundle/gpu_report.py" "$out" "$(cat "$bundle/commit")"
echo "see $out/gpu_check.md" >&2
exit "$failed"
