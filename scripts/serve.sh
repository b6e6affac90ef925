#!/usr/bin/env bash
# serve.sh [flags of `headcount serve`]: from a clean clone to a server. Installs
# packages, configures, builds, and serves models/mailroom; where something is
# done already, it takes a moment.
#
# serve.sh --demo: serves the model twice on free ports, with all its heads and
# with half of its KV heads pruned, classifies mails, prints a table, ends.
set -euo pipefail
cd "$(dirname "$0")/.."

# With a GPU that its driver knows, and a toolkit to compile for it: CUDA, for that
# GPU alone, which is experimental. `--device cpu` still serves on the CPU.
preset=release
options=()
PATH=$PATH:/usr/local/cuda/bin
if nvidia-smi -L >/dev/null 2>&1; then
  if command -v nvcc >/dev/null; then
    preset=cuda
    options=(-DCMAKE_CUDA_ARCHITECTURES=native)
    echo "There is a GPU: building for it, too. Serving on one is experimental;" \
      "--device cpu serves on the CPU." >&2
  else
    echo "There is a GPU, but no CUDA toolkit (nvcc): building for the CPU." >&2
  fi
fi

build=build/$preset
log_folder=$build/logs
binary=$build/cli/headcount
# shellcheck source=scripts/stages.sh
source scripts/stages.sh

must_stage packages scripts/setup.sh build
must_stage configure configure "$build" --preset "$preset" \
  -DHEADCOUNT_TESTS=OFF "${options[@]}"
must_stage build ninja -C "$build" headcount

if [[ ${1-} == --demo ]]; then
  # The server's log goes to a file, so that the table stays one.
  log=$log_folder/demo.log
  echo >&2
  "$binary" demo models/mailroom 2>"$log" || {
    status=$?
    tail -n 20 "$log" >&2
    exit "$status"
  }
  exit 0
fi

# A model or a configuration on the command line replaces the default model.
model=(models/mailroom)
[[ " $*" != *" --config"* && (-z ${1-} || $1 == -*) ]] || model=()
echo >&2
exec "$binary" serve "${model[@]}" "$@"
