#!/usr/bin/env bash
# demo_heads.sh [FOLDER | --data FILE]: the whole loop on models/mailroom, in
# minutes on a laptop: find the heads that telling spam from ham can spare, serve
# what is left beside the whole, verify.
#
# FOLDER holds train, dev and test as .jsonl or .jsonl.gz: heads are ranked on
# train, the mask is chosen on dev, test is read once. FILE is split by the hash
# of each text instead. A line of either is
#   {"text": "You have won", "label": "spam"}      or "ham"; "body" for "text"
# Without an argument: tests/data/spam/test.jsonl.gz, 701 mails, split by hash.
#
# Results go to build/heads: heads.json, heads.html, verify.txt. Set
# HEADS_OUT for another folder, HEADCOUNT_BINARY to skip the build, and
# HEADS_TARGET for another target than "--max-loss 2pt".
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/release
log_folder=$build/logs
# shellcheck source=scripts/stages.sh
source scripts/stages.sh

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

# The file NAME.jsonl or NAME.jsonl.gz of the folder.
split_file() {
  local file
  for file in "$1/$2.jsonl" "$1/$2.jsonl.gz"; do
    [[ -f $file ]] && echo "$file" && return
  done
  echo "demo_heads.sh: $1 has neither $2.jsonl nor $2.jsonl.gz" >&2
  return 1
}

case ${1-} in
  "") data=(--data tests/data/spam/test.jsonl.gz) ;
      test_data=() ;;
  --data) [[ $# -eq 2 && -f $2 ]] || usage
          data=(--data "$2"); test_data=() ;;
  -*) usage ;;
  *) [[ $# -eq 1 && -d $1 ]] || usage
     train=$(split_file "$1" train) dev=$(split_file "$1" dev)
     test=$(split_file "$1" test)
     data=(--rank "$train" --select "$dev" --test "$test")
     test_data=("$test") ;;
esac

binary=${HEADCOUNT_BINARY-}
if [[ -z $binary ]]; then
  binary=$build/cli/headcount
  must_stage packages scripts/setup.sh build
  must_stage configure configure "$build" --preset release
  must_stage build ninja -C "$build" headcount
fi
out=${HEADS_OUT:-build/heads}
read -ra target <<<"${HEADS_TARGET:---max-loss 2pt}"
mkdir -p "$out"
address=127.0.0.1:${HEADS_PORT:-50071}
export HEADCOUNT_ADDRESS=$address

server=
stop_server() {
  [[ -z $server ]] && return
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
}
trap stop_server EXIT

echo "1. Which heads can go? (stopped? Start again: it goes on)" >&2
"$binary" prune --model ./models/mailroom "${data[@]}" "${target[@]}" \
  --rank-examples 64 --out "$out/heads.json" --report "$out/heads.html"

echo "2. Both models, the pruned one with its mask" >&2
cat >"$out/server.yaml" <<YAML
models:
  - name: mailroom
    source: {path: $PWD/models/mailroom}
  - name: mailroom-pruned
    source: {path: $PWD/models/mailroom}
    heads: {mask_file: heads.json}
YAML
log=$out/serve.log
"$binary" serve --config "$out/server.yaml" --listen "$address" \
  --metrics-listen 127.0.0.1:0 --drain-grace 0s 2>"$log" &
server=$!
until "$binary" health >/dev/null 2>&1; do
  if ! kill -0 "$server" 2>/dev/null; then
    tail -n 20 "$log" >&2
    exit 1
  fi
  sleep 0.2
done
"$binary" show mailroom-pruned

echo "3. Are they as good as the report says, as served?" >&2
if ((${#test_data[@]} == 0)); then
  echo "   (on all mails of the one file, those it was chosen on included)" >&2
  test_data=("${data[1]}")
fi
"$binary" verify mailroom-pruned --against mailroom --data "${test_data[0]}" \
  --max-loss 2pt | tee "$out/verify.txt"
echo "Open $out/heads.html" >&2
