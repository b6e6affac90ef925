#!/usr/bin/env bash
# bundle.sh [ARCHITECTURES]: what gpu_check.sh needs on a machine with a GPU that
# has no compiler and no packages: the kernel tests and the benchmark, with
# their libraries, in build/gpu-bundle.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<EOF
usage: scripts/bundle.sh [ARCHITECTURES]

Builds the kernel tests and the benchmark and puts them, with the libraries that
they need, into build/gpu-bundle. Copy that folder to a machine with an NVIDIA
GPU and run gpu_check.sh in it. Needs nvcc.

  ARCHITECTURES   as CMAKE_CUDA_ARCHITECTURES, such as 90 for H100 and H200, or
                  "80-real;90". Default: 80-real;86-real;89-real;90
EOF
}

case ${1-} in
  -h | --help) usage && exit 0 ;;
esac
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null || {
  echo "bundle.sh: no nvcc: install the CUDA toolkit, 12.4 or later" >&2
  exit 1
}

build=build/cuda
bundle=build/gpu-bundle
cmake -S . -B "$build" --preset cuda \
  ${1:+"-DCMAKE_CUDA_ARCHITECTURES=$1"} >"$build.log" 2>&1 || {
  cat "$build.log" >&2
  exit 1
}
programs=(kernel_gpu_test kernel_gpu_benchmark step_gpu_test step_gpu_benchmark)
ninja -C "$build" "${programs[@]}"

rm -rf "$bundle"
mkdir -p "$bundle/lib"
for program in "${programs[@]}"; do
  strip -o "$bundle/$program" "$build/tests/gpu/$program"
  # All but the C library, which every machine has.
  ldd "$bundle/$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' |
    grep -Ev '/(libc|libm|libdl|librt|libpthread)\.so' |
    xargs -r cp -L -t "$bundle/lib"
done
cp scripts/gpu_check.sh tests/gpu/gpu_report.py tests/gpu/sdpa_baseline.py \
  tests/gpu/model_baseline.py tests/gpu/make_model.py "$bundle"
cp -r tests/data/golden "$bundle/golden"
rm -r "$bundle/golden/tokenizers"
cp -r models/mailroom "$bundle/golden/mailroom"
git rev-parse --short HEAD >"$bundle/commit"
du -sh "$bundle"
