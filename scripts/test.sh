#!/usr/bin/env bash
# test.sh: every test. Installs packages, builds, runs ctest, then the tests of
# threads and memory under sanitizers, and the static checks.
#
# Each stage is a line; its output is in build/test-logs. The last line counts
# tests and checks. Day to day, `ctest --test-dir build/dev -L quick` is enough.
set -euo pipefail
cd "$(dirname "$0")/.."

log_folder=build/test-logs
# shellcheck source=scripts/stages.sh
source scripts/stages.sh

passed=0
failed=0
count() { # STATUS
  if (($1 == 0)); then ((++passed)); else ((++failed)); fi
}

# check NAME COMMAND...: a stage that counts as one test. What went wrong is
# shown at once, since a machine of CI keeps no logs.
check() {
  local status=0
  stage "$@" || status=$?
  count "$status"
  if ((status != 0)); then
    grep -E -A 4 'error|FAILED' "$(log_of "$1")" | head -n 60 >&2 || true
  fi
}

# tests NAME CTEST_ARGUMENTS...: a run of ctest, whose tests are counted.
tests() {
  local name=$1 log status=0 summary
  shift
  stage "$name" ctest --output-on-failure "$@" || status=$?
  log=$(log_of "$name")
  summary=$(grep -E 'tests passed, [0-9]+ tests failed out of' "$log" || true)
  if [[ $summary =~ ([0-9]+)\ tests\ failed\ out\ of\ ([0-9]+) ]]; then
    failed=$((failed + BASH_REMATCH[1]))
    passed=$((passed + BASH_REMATCH[2] - BASH_REMATCH[1]))
    printf '%28s %s\n' '' "$summary" >&2
  else
    count "$((status == 0 ? 1 : status))" # no summary: it did not run
  fi
  if ((status != 0)); then
    sed -n '/The following tests FAILED/,$p' "$log" >&2
  fi
}

# How much was compared with values of other implementations, as the tests said.
golden_summary() {
  local golden=$log_folder/golden.log
  grep -h '^golden:' build/test/Testing/Temporary/LastTest.log >"$golden" ||
    return 0
  grep -E 'runs|texts' "$golden" | sort -u >&2
  echo "golden: $(grep -c 'top logits' "$golden") cases of SmolLM2" >&2
}

# Tests that run under each sanitizer: the ctest names of unit tests are their
# targets. ThreadSanitizer sees nothing inside Debian's gRPC: tests/sanitizers
# says what order it promises, and what of it is not to be looked at.
asan_tests='^(engine|scheduler|server|format|text|tokenizer|json|safetensors|gguf)_.*test$'
tsan_tests='^(engine|scheduler|server|server_service)_test$'
sanitizer_tests() { # NAME TESTS
  local folder=build/$1
  local -a targets
  check "$1 configure" configure "$folder" --preset "$1"
  mapfile -t targets < <(ctest --test-dir "$folder" -N -R "$2" |
    sed -n 's/^ *Test *#[0-9]*: //p')
  check "$1 build" ninja -C "$folder" "${targets[@]}"
  tests "$1 tests" --test-dir "$folder" -R "$2" -j "$(nproc)"
}

our_sources() { git ls-files -- '*.cc' '*.h' ':!tests/fuzz/corpus'; }

format_check() {
  our_sources | xargs clang-format --dry-run --Werror
}

# What clang-tidy and clang's own warnings, lock annotations among them, find in
# src/, whose sources are joined as in the build: headers are looked through once
# for several of them. Kernels are looked at for one target: the others are the
# same source. Options that only GCC knows are left out, and the copies of CUDA
# kernels that the emulator is built from.
tidy_check() {
  configure build/tidy --preset test
  sed -i -E 's/ -(fno-tree-[a-z]+|Wno-subobject-linkage)//g' \
    build/tidy/compile_commands.json
  sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' build/tidy/compile_commands.json |
    grep -E "^$PWD/(build/tidy/)?src/" | grep -v '\.cu\.cc$' | sort -u |
    xargs -P "$(nproc)" -n 2 clang-tidy --quiet -p build/tidy \
      --checks=-bugprone-suspicious-include \
      --extra-arg=-Wthread-safety --extra-arg=-DHWY_COMPILE_ONLY_STATIC
}

# Clang's warnings in server/ and cli/, whose sources are joined as in the
# build: most of the time goes into gRPC's headers.
clang_check() {
  find build/test/server build/test/cli -name 'unity_*_cxx.cxx' -print0 |
    xargs -0 -P "$(nproc)" -I{} clang++ -std=c++20 -fsyntax-only \
      -Wall -Wextra -Wthread-safety -Werror -DHEADCOUNT_VERSION='"0"' \
      -Isrc -I. -isystem build/test/proto {}
}

shell_check() {
  git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck -x
}

must_stage packages scripts/setup.sh all
# The real model, whose tests are skipped without it.
stage "fetch smollm2-135m" scripts/fetch_model.sh smollm2-135m ||
  echo "without models/smollm2-135m, ctest skips the tests of it" >&2
must_stage configure configure build/test --preset test
check build ninja -C build/test
tests "all tests" --test-dir build/test -j "$(nproc)"
golden_summary

# Where there is a CUDA toolkit: kernels for Hopper compile without warnings and
# within their registers, and so does what only such a build has. Two dtypes stand
# for all: scripts/bundle.sh builds the rest, and the architectures before.
cuda_kernels() {
  local kernels=src/backend/cuda/CMakeFiles/headcount_cuda.dir
  ninja -C build/cuda \
    "$kernels"/{attention_bf16,attention_int8,kv_write}.cu.o \
    "$kernels"/{matmul_kernels,matmul_tiles,row_kernels}.cu.o \
    "$kernels"/sampling_kernels.cu.o "$kernels"/device.cc.o \
    src/backend/CMakeFiles/headcount_devices.dir/create_backend.cc.o \
    tests/gpu/CMakeFiles/kernel_gpu_benchmark.dir/attention_benchmark.cc.o \
    tests/gpu/CMakeFiles/step_gpu_benchmark.dir/step_benchmark.cc.o
}
PATH=$PATH:/usr/local/cuda/bin
if command -v nvcc >/dev/null; then
  check "cuda configure" configure build/cuda --preset cuda \
    -DCMAKE_CUDA_ARCHITECTURES=90 -DHEADCOUNT_JOIN_SOURCES=OFF
  check "cuda kernels" cuda_kernels
  check "cuda budget" tests/gpu/budget_test.py build/cuda/src/backend/cuda
fi

export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:suppressions=$PWD/tests/sanitizers/tsan.supp
sanitizer_tests asan "$asan_tests"
sanitizer_tests tsan "$tsan_tests"

check "clang-format" format_check
check "clang-tidy" tidy_check
check "clang warnings" clang_check
check "shellcheck" shell_check

echo "$passed passed, $failed failed"
((failed == 0))
