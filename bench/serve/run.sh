#!/usr/bin/env bash
# Starts the built server on the default model, measures HTTP and gRPC, stops
# it, and measures the bare engine for comparison.
#
#   bench/serve/run.sh BUILD_DIR [bench_serve options]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
shift
work=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || kill "$server" 2> /dev/null || true
  wait
  rm -rf "$work"
}
trap stop EXIT

"$build/bullpen" pack models/default -o "$work/packed" > /dev/null 2>&1
mkfifo "$work/log"
"$build/bullpen" serve "$work/packed" --port 0 --grpc-port 0 --log-level info 2> "$work/log" &
server=$!
# One "ready: ..." line names the ports; what follows is not of interest.
exec 3< "$work/log"
ready=
while read -r line <&3; do
  case "$line" in *" ready: "*) ready=$line; break ;; esac
done
[ -n "$ready" ] || { echo "error: the server did not start" >&2; exit 1; }
cat <&3 > /dev/null &
url=$(grep -oE 'http://[^ ]+' <<< "$ready")
target=$(grep -oE 'grpc://[^ ]+' <<< "$ready")
"$build/bench/serve/bench_serve" --url "$url" --grpc "${target#grpc://}" "$@"
kill "$server"
wait "$server"
server=
"$build/bullpen" bench decode "$work/packed" --sequences 1,8
