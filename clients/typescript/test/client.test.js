import assert from "node:assert/strict";
import { test } from "node:test";
import { Webhook } from "standardwebhooks";
import { Client, ProblemError, verifyWebhook, WebhookVerificationError } from "../dist/index.js";

const SMS = { from: "+12016661234", to: "+18045551234", body: "Hello" };

/** Returns a client whose requests get some answers in turn, and the list of these requests. */
function clientOf(...answers) {
  const requests = [];
  const fetch = async (url, init) => {
    requests.push({ url: new URL(url), ...init });
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return typeof answer === "function" ? answer(requests.at(-1)) : answer;
  };
  return [new Client({ baseUrl: "http://gateway/", apiKey: "a-key", fetch }), requests];
}

function problem(status, code, headers = {}) {
  const errors = [{ field: "to", detail: "is required" }];
  return Response.json({ code, detail: "…", errors }, { status, headers: { "x-request-id": "request-1", ...headers } });
}

const busy = () => problem(503, "overloaded", { "retry-after": "0" });

test("a request is repeated with the same key", async () => {
  const [client, requests] = clientOf(busy(), busy(), Response.json({ id: "1" }, { status: 202 }));

  assert.deepEqual(await client.sendSms(SMS), { id: "1" });
  assert.equal(new Set(requests.map(({ headers }) => headers["idempotency-key"])).size, 1);
  assert.deepEqual(requests.map(({ body }) => JSON.parse(body)), Array(3).fill({ type: "sms", ...SMS }));
  assert.equal(requests[0].headers.authorization, "Bearer a-key");
});

test("an error that lasts, and a refusal, are thrown", async () => {
  const [client, requests] = clientOf(busy(), busy(), busy(), busy(), problem(422, "invalid_request"));

  await assert.rejects(client.getMessage("1"), { status: 503, code: "overloaded" });
  assert.equal(requests.length, 4);
  await assert.rejects(client.suppressAddress("+1/2?3", "a test"), (error) => {
    assert(error instanceof ProblemError);
    assert.equal(error.message, "422 invalid_request: …; to is required");
    assert.equal(error.requestId, "request-1");
    return true;
  });
  assert.equal(requests[4].url.href, "http://gateway/api/suppressions/%2B1%2F2%3F3");
});

test("the items of all pages are yielded", async () => {
  const pages = [
    { items: [1, 2], next_cursor: "a b" },
    { items: [3], next_cursor: null },
  ];
  const [client, requests] = clientOf(...pages.map((page) => Response.json(page)));

  const items = [];
  for await (const item of client.listConversations({ channel: "sms" })) items.push(item);
  assert.deepEqual(items, [1, 2, 3]);
  assert.equal(requests[1].url.search, "?channel=sms&cursor=a+b");
});

test("a stream that is cut anywhere is complete", async () => {
  const events = [1, 2, 3].map((sequence) => ({ id: `event-${sequence}`, sequence, data: { body: "a\u2028é" } }));
  const encode = (after) => {
    const lines = events.slice(after).map((each) => `id: ${each.sequence}\ndata: ${JSON.stringify(each)}\n\n`);
    return new TextEncoder().encode(`: no events\n${lines.join(": no events\n")}`);
  };
  const cutAt = (cut) => ({ url }) => {
    const content = encode(Number(url.searchParams.get("after") ?? 0)).slice(0, cut);
    const parts = Array.from({ length: Math.ceil(content.length / 5) }, (_, part) => content.slice(part * 5, part * 5 + 5));
    const body = new ReadableStream({
      pull(controller) {
        const part = parts.shift();
        if (part) controller.enqueue(part);
        else controller.error(new TypeError("cut"));
      },
    });
    return new Response(body, { headers: { "last-event-id": url.searchParams.get("after") ?? "0" } });
  };
  const [client, requests] = clientOf(cutAt(5), cutAt(80), cutAt(140), cutAt(10_000));

  const found = [];
  for await (const event of client.events({ types: ["message.received"] })) {
    found.push(event);
    if (event.sequence === 3) break;
  }
  assert.deepEqual(found, events);
  assert(requests.length > 2);
  assert.equal(requests[0].url.search, "?type=message.received");
  assert.equal(requests[1].url.searchParams.get("after"), "0");
});

test("a position that is too old is not asked for again", async () => {
  const [client] = clientOf(problem(410, "events_expired"));

  await assert.rejects(client.events({ after: 5 }).next(), { code: "events_expired" });
});

test("a webhook is verified", () => {
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const body = JSON.stringify({ type: "message.received" });
  const headers = (time) => ({
    "Webhook-Id": "event-1",
    "Webhook-Timestamp": String(Math.floor(time / 1000)),
    "Webhook-Signature": new Webhook(secret).sign("event-1", new Date(time), body),
  });

  assert.equal(verifyWebhook(body, new Headers(headers(Date.now())), secret).type, "message.received");
  assert.throws(() => verifyWebhook(body, headers(Date.now() - 360_000), secret), WebhookVerificationError);
  assert.throws(() => verifyWebhook(`${body} `, headers(Date.now()), secret), WebhookVerificationError);
  assert.throws(() => verifyWebhook(body, {}, secret), WebhookVerificationError);
});
