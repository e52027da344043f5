#!/usr/bin/env bash
# fresh.sh BINARY: starts a server in a home of its own, runs run.sh against it, stops it.
# Nothing of the environment is passed on: no keys of providers, so that the mock answers, and no
# settings or proxies either.
set -euo pipefail

binary=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
folder=$(mktemp -d)
clean=(env -i "PATH=$PATH" "HOME=$folder")

cd "$folder"
: >server.log
"${clean[@]}" "$binary" --home "$folder/.exile" --graphs "$here/../../graphs" --bind 127.0.0.1:0 serve \
  </dev/null >server.log 2>&1 &
server=$!
stop() {
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap stop EXIT

ready='s|.*exile listening on \(http://[^ /]*\).*|\1|p'
for _ in $(seq 200); do
  url=$(sed -n "$ready" server.log | head -n 1)
  [[ -n $url ]] && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
if [[ -z $url ]]; then
  cat server.log >&2
  exit 1
fi

"${clean[@]}" "EXILE_URL=$url" "EXILE_KEY=$(<.exile/local.key)" "$here/run.sh"
