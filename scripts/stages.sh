# Sourced by the other scripts: one line for each stage, its output in a file.
# shellcheck shell=bash

: "${log_folder:?is set by the script that sources this}"

log_of() { echo "$log_folder/${1//[^a-z0-9]/-}.log"; }

# stage NAME COMMAND...: runs COMMAND with its output in log_of NAME
# and prints how it ended and how long it took. Returns its exit status.
stage() {
  local name=$1 log status=0 start=$SECONDS
  shift
  mkdir -p "$log_folder"
  log=$(log_of "$name")
  printf '%-28s ' "$name" >&2
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if ((status == 0)); then
    printf 'ok %6d s\n' $((SECONDS - start)) >&2
  else
    printf 'FAILED after %d s, see %s\n' $((SECONDS - start)) "$log" >&2
  fi
  return "$status"
}

# must_stage: the same, but a failure shows the end of the log and exits.
must_stage() {
  if ! stage "$@"; then
    tail -n 40 "$(log_of "$1")" >&2
    exit 1
  fi
}

# configure FOLDER ARGUMENTS...: cmake, unless FOLDER is configured already
# (ninja looks after changes).
configure() {
  local folder=$1
  shift
  [[ -f $folder/build.ninja ]] || cmake -B "$folder" "$@"
}

if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER-ccache}
fi
