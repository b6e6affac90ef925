#!/bin/sh
# keep_log.sh COMMAND... -o OBJECT ...: runs a compiler and keeps what it says in
# OBJECT.log; shows it only when it fails.
previous=
for argument; do
  [ "$previous" = -o ] && log=$argument.log
  previous=$argument
done
"$@" >"$log" 2>&1 || {
  status=$?
  cat "$log" >&2
  exit "$status"
}
