#!/usr/bin/env bash
# setup.sh [build|test|all]: installs the Debian packages that the project
# needs. Does nothing, in a moment, when they are all there.
set -euo pipefail

# The one list. Versions are those of Debian 12.
build_packages=(
  cmake g++ ninja-build pkg-config
  libabsl-dev libcli11-dev libeigen3-dev libgrpc++-dev libhwy-dev
  libprotobuf-dev libssl-dev libutf8proc-dev libyaml-cpp-dev nlohmann-json3-dev
  prometheus-cpp-dev protobuf-compiler protobuf-compiler-grpc zlib1g-dev
)
test_packages=(
  clang clang-format clang-tidy libbenchmark-dev libclang-rt-dev libgmock-dev
  libgtest-dev llvm prometheus python3 python3-grpcio python3-pip
  python3-protobuf python3-yaml shellcheck
)

group=${1:-build}
case $group in
  build) wanted=("${build_packages[@]}") ;;
  test) wanted=("${test_packages[@]}") ;;
  all) wanted=("${build_packages[@]}" "${test_packages[@]}") ;;
  *)
    echo "usage: setup.sh [build|test|all]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  cat >&2 <<EOF
This is not a Debian system, so nothing was installed. On Debian 12 the
packages are:
  ${wanted[*]}
Install what your system calls them, then build with
  cmake --preset release && cmake --build --preset release
or use docker/Dockerfile.
EOF
  exit 1
fi

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "Packages are missing; as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y --no-install-recommends "${missing[@]}"
