#!/usr/bin/env bash
# Walks through the API of a running service with curl and checks the responses.
#
#   bin/test.sh                                     against `make run` on this machine
#   GATEWAY_URL=http://host:port bin/test.sh        elsewhere
#   API_KEY=key bin/test.sh                         where keys are configured
#
# Exits with 1 if any check fails. The webhooks are not signed, so if WEBHOOK_SECRET is set, they are expected
# to be refused.
set -uo pipefail

GATEWAY_URL=${GATEWAY_URL:-http://127.0.0.1:${GATEWAY_PORT:-8080}}
API_KEY=${API_KEY:-}
WEBHOOK_SECRET=${WEBHOOK_SECRET:-}
# Numbers and ids differ in each run, so that it can be repeated with the same database.
run=$(date +%s)$RANDOM
us="+1201555$((RANDOM % 9000 + 1000))"
them="+1804555$((RANDOM % 9000 + 1000))"
failures=0
checks=0
status=
body=

say() { printf '\n%s\n' "$*"; }

# call METHOD PATH [curl arguments…]: sets status and body
call() {
  local method=$1 path=$2 answer
  shift 2
  answer=$(curl --silent --show-error --max-time 10 --request "$method" "$GATEWAY_URL$path" \
    ${API_KEY:+--header "Authorization: Bearer $API_KEY"} --write-out '\n%{http_code}' "$@") || answer=$'\n000'
  status=${answer##*$'\n'}
  body=${answer%$'\n'*}
}

post() { call POST "$1" --header 'Content-Type: application/json' --data "$2" "${@:3}"; }

# field EXPRESSION: prints the value of a Python expression, in which `body` is the JSON body
field() {
  python3 -c 'import json, sys; body = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" <<<"$body" 2>/dev/null
}

check() {
  local what=$1 found=$2 expected=$3
  checks=$((checks + 1))
  if [[ $found == "$expected" ]]; then
    printf '  ok      %s\n' "$what"
  else
    failures=$((failures + 1))
    printf '  FAILED  %s: expected %s, found %s\n          %.300s\n' "$what" "$expected" "$found" "$body"
  fi
}

# eventually WHAT PATH EXPRESSION EXPECTED: repeats the request for up to 20 seconds
eventually() {
  local what=$1 path=$2 expression=$3 expected=$4 found=
  for _ in $(seq 100); do
    call GET "$path"
    found=$(field "$expression")
    [[ $found == "$expected" ]] && break
    sleep 0.2
  done
  check "$what" "$found" "$expected"
}

webhook_status=200
[[ -n $WEBHOOK_SECRET ]] && webhook_status=401

call GET /healthz
[[ $status == 200 ]] || {
  echo "test: no gateway answers at $GATEWAY_URL; start one with: make run" >&2
  exit 1
}

say "Sending"
post /api/messages/sms "{
  \"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\",
  \"body\": \"Hello! This is a test SMS message.\", \"attachments\": null, \"timestamp\": \"2024-11-01T14:00:00Z\"}"
check "an SMS is accepted" "$status" 202
sms=$(field "body['id']")
conversation=$(field "body['conversation_key']")

post /api/messages/sms "{
  \"from\": \"$us\", \"to\": \"$them\", \"type\": \"mms\", \"body\": \"Hello! This is a test MMS message.\",
  \"attachments\": [\"https://example.com/image.jpg\"], \"timestamp\": \"2024-11-01T14:00:01Z\"}"
check "an MMS is accepted" "$status" 202
check "it is in the same conversation" "$(field "body['conversation_key']")" "$conversation"

post /api/messages/email "{
  \"from\": \"[user-$run@usehatchapp.com](mailto:user-$run@usehatchapp.com)\", \"to\": \"contact@gmail.com\",
  \"body\": \"Hello! This is a test email message with <b>HTML</b> formatting.\",
  \"attachments\": [\"attachment-url\"], \"timestamp\": \"2024-11-01T14:00:00Z\"}"
check "an e-mail is accepted" "$status" 202
check "its sender is extracted from the Markdown link" "$(field "body['from']")" "user-$run@usehatchapp.com"
email_conversation=$(field "body['conversation_key']")

say "Repeating a request"
for _ in 1 2; do
  post /api/messages/sms "{\"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\", \"body\": \"once\"}" \
    --header "Idempotency-Key: \"$run\""
  ids="${ids:-} $(field "body['id']")"
done
read -r first second <<<"$ids"
check "the same idempotency key returns the same message" "$second" "$first"
post /api/messages/sms "{\"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\", \"body\": \"other\"}" \
  --header "Idempotency-Key: \"$run\""
check "the same key with another payload is refused" "$status" 422

say "Scheduling"
later=$(python3 -c 'from datetime import *; print((datetime.now(timezone.utc) + timedelta(hours=1)).isoformat())')
post /api/messages/sms "{
  \"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\", \"body\": \"later\", \"send_at\": \"$later\"}"
check "a message with send_at is scheduled" "$(field "body['status']")" scheduled
scheduled=$(field "body['id']")
eventually "it is stored" "/api/messages/$scheduled" "body['status']" scheduled
call DELETE "/api/messages/$scheduled"
check "it can be cancelled" "$(field "body['status']")" canceled
eventually "and remains cancelled" "/api/messages/$scheduled" "body['status']" canceled

say "Receiving"
post /api/webhooks/sms "{
  \"from\": \"$them\", \"to\": \"$us\", \"type\": \"sms\", \"messaging_provider_id\": \"sms-$run\",
  \"body\": \"This is an incoming SMS message\", \"attachments\": null, \"timestamp\": \"2024-11-01T14:00:02Z\"}"
check "an inbound SMS is accepted" "$status" "$webhook_status"
post /api/webhooks/sms "{
  \"from\": \"$them\", \"to\": \"$us\", \"type\": \"mms\", \"messaging_provider_id\": \"mms-$run\",
  \"body\": \"This is an incoming MMS message\", \"attachments\": [\"https://example.com/received-image.jpg\"],
  \"timestamp\": \"2024-11-01T14:00:03Z\"}"
check "an inbound MMS is accepted" "$status" "$webhook_status"
post /api/webhooks/email "{
  \"from\": \"contact@gmail.com\", \"to\": \"user-$run@usehatchapp.com\", \"xillio_id\": \"email-$run\",
  \"body\": \"<html><body>This is an incoming email with <b>HTML</b> content</body></html>\",
  \"attachments\": [], \"timestamp\": \"2024-11-01T14:00:01Z\"}"
check "an inbound e-mail is accepted" "$status" "$webhook_status"
post /api/webhooks/sms "{
  \"from\": \"$them\", \"to\": \"$us\", \"type\": \"sms\", \"messaging_provider_id\": \"sms-$run\",
  \"body\": \"This is an incoming SMS message\", \"attachments\": null, \"timestamp\": \"2024-11-01T14:00:02Z\"}"
check "a repeated webhook is accepted" "$status" "$webhook_status"

say "Reading"
inbound=0
[[ $webhook_status == 200 ]] && inbound=1
eventually "the SMS is sent" "/api/messages/$sms" "body['status'] in {'sent', 'delivered'}" True
call DELETE "/api/messages/$sms"
check "and can no longer be cancelled" "$status" 409
check "because it is not cancellable" "$(field "body['code']")" not_cancelable
eventually "the conversation contains every message once" "/api/conversations/$conversation" \
  "body['message_count']" $((4 + 2 * inbound))
number=$(field "body['id']")
eventually "the e-mails are one conversation" "/api/conversations/$email_conversation" \
  "body['message_count']" $((1 + inbound))
call GET "/api/conversations/$number/messages?limit=2"
check "messages are listed oldest first" "$(field "[m['type'] for m in body['items']]")" "['sms', 'mms']"
cursor=$(field "body['next_cursor']")
call GET "/api/conversations/$number/messages?limit=2&cursor=$cursor"
check "and in pages" "$status" 200
call GET "/api/conversations?participant=$them&limit=1"
check "conversations can be filtered by participant" "$(field "body['items'][0]['key']")" "$conversation"
call GET "/api/dead-letters"
check "dead letters are listed" "$status" 200

say "Sending a batch, replying, and finding messages"
post /api/messages/batch "{\"messages\": [
  {\"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\", \"body\": \"one\", \"reference\": \"batch-$run\"},
  {\"from\": \"$us\", \"to\": \"12\", \"type\": \"sms\", \"body\": \"two\"}]}"
check "a message of a batch is accepted" "$(field "body['items'][0]['message']['priority']")" bulk
check "and an invalid one is refused" "$(field "body['items'][1]['problem']['code']")" invalid_request
post "/api/conversations/$number/messages" "{\"body\": \"a reply\", \"metadata\": {\"run\": \"$run\"}}"
check "a reply is sent to the other participant" "$(field "body['to']")" "$them"
eventually "a message is found by its reference" "/api/messages?reference=batch-$run" "len(body['items'])" 1
eventually "and by its metadata" "/api/messages?metadata%5Brun%5D=$run" "body['items'][0]['body']" "a reply"
call GET "/api/messages?address=$them&status=canceled"
check "and by its address and status" "$(field "[m['body'] for m in body['items']]")" "['later']"

say "Suppressing"
call PUT "/api/suppressions/$them" --header 'Content-Type: application/json' --data '{"reason": "a test"}'
check "an address is suppressed" "$(field "body['address']")" "$them"
post /api/messages/sms "{\"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\", \"body\": \"x\"}"
check "a message to it is refused" "$status" 409
check "because the recipient has opted out" "$(field "body['code']")" recipient_opted_out
eventually "the address is listed" "/api/suppressions?address=$them" "len(body['items'])" 1
call DELETE "/api/suppressions/$them"
check "the suppression is lifted" "$status" 204
eventually "and no longer listed" "/api/suppressions?address=$them" "len(body['items'])" 0

say "Events"
eventually "events are listed" "/api/events?limit=1" "len(body['items'])" 1
call GET /api/events?after=999999999999
check "a position without its events is refused" "$status" 410

say "Managing webhook endpoints"
endpoint='"url": "https://hooks.example/'$run'", "event_types": ["webhook_endpoint.disabled"]'
post /api/webhook-endpoints "{$endpoint}"
check "an endpoint is created" "$status" 201
check "with a secret" "$(field "body['secret'][:6]")" whsec_
id=$(field "body['id']")
call GET "/api/webhook-endpoints/$id"
check "which is not shown again" "$(field "'secret' in body")" False
call PATCH "/api/webhook-endpoints/$id" --header 'Content-Type: application/json' --data '{"state": "disabled"}'
check "the endpoint is disabled" "$(field "body['disabled_reason']")" requested
call GET "/api/webhook-endpoints/$id/attempts"
check "nothing was sent to it" "$(field "body['items']")" "[]"
call DELETE "/api/webhook-endpoints/$id"
check "it is deleted" "$status" 204

say "Refusing invalid requests"
post /api/messages/sms 'not JSON'
check "a body that is not JSON" "$status" 400
post /api/messages/sms "{\"from\": \"$us\", \"to\": \"12\", \"type\": \"sms\", \"body\": \"x\"}"
check "an invalid phone number" "$status" 422
check "with the name of the field" "$(field "body['errors'][0]['field']")" to
post /api/messages/sms "{\"from\": \"$us\", \"to\": \"$them\", \"type\": \"fax\", \"body\": \"x\"}"
check "an unknown message type" "$status" 422
post /api/messages/sms "{\"from\": \"$us\", \"to\": \"$them\", \"type\": \"sms\", \"body\": \"\"}"
check "a message without content" "$status" 422
call POST /api/messages/sms --header 'Content-Type: text/plain' --data '{}'
check "an unsupported content type" "$status" 415
head -c 300000 /dev/zero | tr '\0' 'x' >"${TMPDIR:-/tmp}/body-$run"
call POST /api/messages/email --header 'Content-Type: application/json' --data-binary "@${TMPDIR:-/tmp}/body-$run"
rm -f "${TMPDIR:-/tmp}/body-$run"
check "a body that is too large" "$status" 413
call GET /api/conversations/999999999
check "an unknown conversation" "$status" 404
call GET '/api/conversations?cursor=tampered'
check "a tampered cursor" "$status" 422

printf '\n%d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
