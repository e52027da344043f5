#!/usr/bin/env bash
# Every request that a first integration needs, with curl, against a running server.
#
#   EXILE_URL   where it listens; default http://127.0.0.1:8080
#   EXILE_KEY   a key; default: what the server wrote to .exile/local.key on its first start
#
# Stops at the first answer that is not 2xx.
set -euo pipefail
cd "$(dirname "$0")/../.."

url=${EXILE_URL:-http://127.0.0.1:8080}
key=${EXILE_KEY:-$(<.exile/local.key)}

# call METHOD PATH [BODY]: prints the request, and the answer on one line.
call() {
  echo "> $1 $2 ${3:-}" >&2
  answer=$(curl --silent --show-error --fail-with-body --request "$1" "$url$2" \
    --header "Authorization: Bearer $key" --header 'Content-Type: application/json' \
    ${3:+--data "$3"}) || { echo "< $answer" >&2 && exit 1; }
  echo "< ${answer:0:300}" >&2
}

# stream METHOD PATH [BODY]: the same for server-sent events, as they come.
stream() {
  echo "> $1 $2 ${3:-} (stream)" >&2
  answer=$(curl --silent --show-error --fail-with-body --no-buffer --request "$1" "$url$2" \
    --header "Authorization: Bearer $key" --header 'Content-Type: application/json' \
    --header 'Accept: text/event-stream' ${3:+--data "$3"} | tee >(cat >&2))
}

# field PATH: a field of the last answer, e.g. run.id or interrupts.0.id.
field() {
  python3 -c 'import functools, json, sys
at = lambda value, key: value[int(key) if key.isdigit() else key]
print(functools.reduce(at, sys.argv[1].split("."), json.load(sys.stdin)))' "$1" <<<"$answer"
}

# holds TEXT: fails unless the last answer holds it.
holds() {
  [[ $answer == *"$1"* ]] || { echo "expected $1 in the answer" >&2 && exit 1; }
}

echo "== A conversation"
call POST /api/conversations '{"graph": "agent", "title": "First steps"}'
conversation=$(field id)
call POST "/api/conversations/$conversation/messages" '{"content": "What is 12.5 * 8?"}'
holds '"assistant"'
stream POST "/api/conversations/$conversation/messages" '{"content": "那么 0.1 + 0.2 呢？", "stream": true}'
holds 'event: message.delta'
holds 'event: tool.result'
holds 'event: run.finished'
call GET "/api/conversations/$conversation/messages"
holds '12.5 * 8'

echo "== A run that is waited for"
question='{"messages": [{"role": "user", "content": "Is the moon older than the oceans?"}]}'
call POST /api/runs/wait "{\"graph\": \"research\", \"input\": $question}"
holds '"finished"'

echo "== A run that is watched"
stream POST /api/runs/stream "{\"graph\": \"chat\", \"input\": $question}"
holds 'event: node.started'
holds 'event: run.finished'

echo "== A run in the background, read while it goes on and afterwards"
call POST /api/runs "{\"graph\": \"chat\", \"input\": $question}"
run=$(field id)
stream GET "/api/runs/$run/stream"
holds 'event: run.finished'
call GET "/api/runs/$run"
holds '"finished"'
call GET "/api/runs/$run/state"
holds '"messages"'
call GET "/api/runs/$run/events"
holds '"run.started"'

echo "== A run that is stopped"
call POST /api/runs "{\"graph\": \"research\", \"input\": $question}"
run=$(field id)
call POST "/api/runs/$run/cancel" '{}'
call GET "/api/runs/$run"

echo "== A run that is forked with another state, waits for a person, and is answered"
call POST /api/runs/wait "{\"graph\": \"refund-desk\", \"input\": $question}"
run=$(field run.id)
call GET "/api/runs/$run/checkpoints"
holds '"start"'
call POST "/api/runs/$run/fork" '{"values": {"amount": 900}, "as_node": "total"}'
fork=$(field id)
stream GET "/api/runs/$fork/stream"
holds 'event: run.waiting'
call GET "/api/runs/$fork"
interrupt=$(field interrupts.0.id)
stream POST "/api/runs/$fork/resume" "{\"answers\": {\"$interrupt\": \"approve\"}}"
holds 'event: run.finished'
call GET "/api/runs/$fork/state"
holds '"approve"'

echo "== What OpenAI's clients ask"
call GET /v1/models
holds '"agent"'
call POST /v1/chat/completions '{"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}'
holds '"chat.completion"'

echo "== Tools"
call GET /api/tools
holds '"calculator"'
call POST /api/tools/calculator/call '{"arguments": {"expression": "(1 + 2) * 3"}}'
holds '9'

echo "All requests were answered"
