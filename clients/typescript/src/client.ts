import { ProblemError } from "./errors.js";
import { type Event, EventParser, linesOf } from "./events.js";
import { isTemporary, waitAfter } from "./retries.js";
import type { components, operations } from "./schema.js";

type Schemas = components["schemas"];
type Query<Operation extends keyof operations> = Omit<
  NonNullable<operations[Operation]["parameters"]["query"]>,
  "cursor"
>;
type Page<Item> = { items: Item[]; next_cursor: string | null };
type Options = { query?: object; body?: unknown; headers?: Record<string, string>; maxAttempts?: number };

/** The fields of an SMS, or of an MMS with the `type` `mms`. */
export type SmsFields = Omit<Schemas["SmsRequest"], "type"> & { type?: Schemas["SmsRequest"]["type"] };
export type EmailFields = Omit<Schemas["EmailRequest"], "type">;
export type SendOptions = { idempotencyKey?: string };

export interface ClientOptions {
  /** The URL of the gateway; `http://localhost:8080` by default. */
  baseUrl?: string;
  /** Needed if the gateway has API keys. */
  apiKey?: string;
  /** Milliseconds that one attempt may take. */
  timeout?: number;
  /** How often a request is made before its error is thrown. */
  maxAttempts?: number;
  /** A replacement for the global `fetch`. */
  fetch?: typeof fetch;
}

export interface EventFilter {
  /** The `sequence` of the last event that was processed; by default, only new events are yielded. */
  after?: number;
  /** The types of events; all by default. */
  types?: Event["type"][];
  channel?: Schemas["Channel"];
  /** One of your addresses. */
  address?: string;
  /** Ends the iteration. */
  signal?: AbortSignal;
}

/** Milliseconds. The service sends something every 15 seconds. */
const STREAM_TIMEOUT = 40_000;

/**
 * A client of the messaging service.
 *
 * It repeats requests that fail for a while, after the time that the service asks for. A message is never accepted
 * twice, because each request to send has an `Idempotency-Key`. Methods throw a ProblemError if the service refuses a
 * request, and the error of `fetch` if it cannot be reached.
 */
export class Client {
  readonly #baseUrl: string;
  readonly #headers: Record<string, string>;
  readonly #timeout: number;
  readonly #maxAttempts: number;
  readonly #fetch: typeof fetch;

  constructor(options: ClientOptions = {}) {
    this.#baseUrl = (options.baseUrl ?? "http://localhost:8080").replace(/\/+$/, "");
    this.#headers = options.apiKey ? { authorization: `Bearer ${options.apiKey}` } : {};
    this.#timeout = options.timeout ?? 10_000;
    this.#maxAttempts = options.maxAttempts ?? 4;
    this.#fetch = options.fetch ?? fetch;
  }

  /** Sends an SMS or MMS. */
  sendSms(fields: SmsFields, options: SendOptions = {}): Promise<Schemas["MessageResponse"]> {
    return this.#create("/api/messages/sms", { type: "sms", ...fields }, options);
  }

  /** Sends an e-mail. */
  sendEmail(fields: EmailFields, options: SendOptions = {}): Promise<Schemas["MessageResponse"]> {
    return this.#create("/api/messages/email", fields, options);
  }

  /** Sends up to 500 messages of both channels; each item of the response has a message or a problem. */
  sendBatch(messages: Schemas["BatchRequest"]["messages"], options: SendOptions = {}): Promise<Schemas["BatchResponse"]> {
    return this.#create("/api/messages/batch", { messages }, options);
  }

  /** Gets a message with its history. */
  getMessage(id: string): Promise<Schemas["MessageWithHistory"]> {
    return this.#call("GET", path`/api/messages/${id}`);
  }

  /** Cancels a message that is waiting to be sent. */
  cancelMessage(id: string): Promise<Schemas["MessageResponse"]> {
    return this.#call("DELETE", path`/api/messages/${id}`);
  }

  /** Lists messages. */
  listMessages(query: Query<"list_messages"> = {}): AsyncGenerator<Schemas["MessageResponse"]> {
    return this.#items("/api/messages", query);
  }

  /** Lists conversations, most recent message first. */
  listConversations(query: Query<"list_conversations"> = {}): AsyncGenerator<Schemas["ConversationResponse"]> {
    return this.#items("/api/conversations", query);
  }

  /** Gets a conversation by its id or key. */
  getConversation(id: number | string): Promise<Schemas["ConversationResponse"]> {
    return this.#call("GET", path`/api/conversations/${id}`);
  }

  /** Lists the messages of a conversation, oldest first. */
  listConversationMessages(id: number | string): AsyncGenerator<Schemas["MessageResponse"]> {
    return this.#items(path`/api/conversations/${id}/messages`, {});
  }

  /** Sends a message to the other participant of a conversation. */
  replyToConversation(
    id: number | string,
    fields: Schemas["ReplyRequest"],
    options: SendOptions = {},
  ): Promise<Schemas["MessageResponse"]> {
    return this.#create(path`/api/conversations/${id}/messages`, fields, options);
  }

  /** Lists dead letters, newest first. */
  listDeadLetters(query: Query<"list_dead_letters"> = {}): AsyncGenerator<Schemas["DeadLetterResponse"]> {
    return this.#items("/api/dead-letters", query);
  }

  /** Gets a dead letter with the history of its message. */
  getDeadLetter(id: string): Promise<Schemas["DeadLetterWithHistory"]> {
    return this.#call("GET", path`/api/dead-letters/${id}`);
  }

  /** Replays a dead letter; doing so again does not replay it twice. */
  replayDeadLetter(id: string): Promise<Schemas["ReplayResponse"]> {
    return this.#call("POST", path`/api/dead-letters/${id}/replay`);
  }

  /** Discards a dead letter. */
  discardDeadLetter(id: string, reason: string): Promise<Schemas["DiscardResponse"]> {
    return this.#call("POST", path`/api/dead-letters/${id}/discard`, { body: { reason } });
  }

  /** Replays some of the dead letters that match a filter; continue with `next_cursor`. */
  replayDeadLetters(body: Partial<Schemas["BulkReplayRequest"]>): Promise<Schemas["BulkResponse"]> {
    return this.#call("POST", "/api/dead-letters/replay", { body });
  }

  /** Discards some of the dead letters that match a filter; continue with `next_cursor`. */
  discardDeadLetters(
    body: Partial<Schemas["BulkDiscardRequest"]> & { reason: string },
  ): Promise<Schemas["BulkResponse"]> {
    return this.#call("POST", "/api/dead-letters/discard", { body });
  }

  /** Lists suppressed addresses, most recent first. */
  listSuppressions(query: Query<"list_suppressions"> = {}): AsyncGenerator<Schemas["SuppressionResponse"]> {
    return this.#items("/api/suppressions", query);
  }

  /** Sends no more messages to an address, from one sender address or from all of them. */
  suppressAddress(address: string, reason: string, sender?: string): Promise<Schemas["SuppressionResponse"]> {
    return this.#call("PUT", path`/api/suppressions/${address}`, { query: { sender }, body: { reason } });
  }

  /** Lifts a suppression. */
  async liftSuppression(address: string, sender?: string): Promise<void> {
    await this.#call("DELETE", path`/api/suppressions/${address}`, { query: { sender } });
  }

  /** Creates a webhook endpoint; its secret is shown only once. */
  createWebhookEndpoint(
    fields: Schemas["WebhookEndpointCreate"],
    options: SendOptions = {},
  ): Promise<Schemas["WebhookEndpointWithSecret"]> {
    return this.#create("/api/webhook-endpoints", fields, options);
  }

  /** Lists webhook endpoints, newest first. */
  listWebhookEndpoints(): AsyncGenerator<Schemas["WebhookEndpointResponse"]> {
    return this.#items("/api/webhook-endpoints", {});
  }

  /** Gets a webhook endpoint. */
  getWebhookEndpoint(id: string): Promise<Schemas["WebhookEndpointResponse"]> {
    return this.#call("GET", path`/api/webhook-endpoints/${id}`);
  }

  /** Changes the given fields of a webhook endpoint. */
  updateWebhookEndpoint(
    id: string,
    fields: Schemas["WebhookEndpointUpdate"],
  ): Promise<Schemas["WebhookEndpointResponse"]> {
    return this.#call("PATCH", path`/api/webhook-endpoints/${id}`, { body: fields });
  }

  /** Deletes a webhook endpoint. */
  async deleteWebhookEndpoint(id: string): Promise<void> {
    await this.#call("DELETE", path`/api/webhook-endpoints/${id}`);
  }

  /** Rotates the secret of a webhook endpoint. The request is not repeated, since that would rotate it twice. */
  rotateWebhookSecret(id: string): Promise<Schemas["WebhookEndpointWithSecret"]> {
    return this.#call("POST", path`/api/webhook-endpoints/${id}/rotate-secret`, { maxAttempts: 1 });
  }

  /** Sends a test event to a webhook endpoint. */
  testWebhookEndpoint(id: string): Promise<Schemas["DeliveryResponse"]> {
    return this.#call("POST", path`/api/webhook-endpoints/${id}/test`);
  }

  /** Lists the attempts to deliver events to a webhook endpoint, newest first. */
  listWebhookAttempts(
    id: string,
    query: Query<"list_webhook_attempts"> = {},
  ): AsyncGenerator<Schemas["WebhookAttemptResponse"]> {
    return this.#items(path`/api/webhook-endpoints/${id}/attempts`, query);
  }

  /** Sends the event of an attempt again. */
  retryWebhookAttempt(id: string, attemptId: string): Promise<Schemas["DeliveryResponse"]> {
    return this.#call("POST", path`/api/webhook-endpoints/${id}/attempts/${attemptId}/retry`);
  }

  /** Sends the events that an endpoint has never received since a time. */
  recoverWebhookEvents(
    id: string,
    body: Partial<Schemas["RecoverRequest"]> & { since: string },
  ): Promise<Schemas["RecoverResponse"]> {
    return this.#call("POST", path`/api/webhook-endpoints/${id}/recover`, { body });
  }

  /** Gets a page of events, for those who poll; continue with its `next_cursor` as `after`. */
  listEvents(query: Query<"list_events"> = {}): Promise<Schemas["EventPage"]> {
    return this.#call("GET", "/api/events", { query });
  }

  /**
   * Yields events as they happen, and continues after a lost connection without missing any. Store the `sequence` of
   * the last one to continue after a restart.
   */
  async *events(filter: EventFilter = {}): AsyncGenerator<Event> {
    const { after, types, signal, ...query } = filter;
    const parser = new EventParser(after?.toString());
    let failures = 0;
    while (!signal?.aborted) {
      parser.reset();
      let error: unknown = new Error("the stream has ended");
      const silence = new AbortController();
      const abort = () => silence.abort(signal?.reason);
      signal?.addEventListener("abort", abort);
      let timer = setTimeout(abort, STREAM_TIMEOUT);
      try {
        const url = this.#url("/api/events", { ...query, type: types, after: parser.lastId });
        const headers = { ...this.#headers, accept: "text/event-stream" };
        const response = await this.#fetch(url, { headers, signal: silence.signal });
        if (!response.ok || !response.body) throw await ProblemError.of(response);
        parser.lastId ??= response.headers.get("last-event-id") ?? undefined;
        for await (const line of linesOf(response.body)) {
          clearTimeout(timer);
          timer = setTimeout(abort, STREAM_TIMEOUT);
          failures = 0;
          const event = parser.feed(line);
          if (event) yield event;
        }
      } catch (exc) {
        error = exc;
      } finally {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        silence.abort();
      }
      if (signal?.aborted) return;
      if (!isTemporary(error)) throw error;
      failures += 1;
      await waitAfter(error, failures, signal).catch(() => undefined);
    }
  }

  #create<Result>(path: string, body: object, options: SendOptions): Promise<Result> {
    const key = options.idempotencyKey ?? crypto.randomUUID();
    return this.#call("POST", path, { body, headers: { "idempotency-key": key } });
  }

  async *#items<Item>(path: string, query: object): AsyncGenerator<Item> {
    let cursor: string | undefined;
    do {
      const page: Page<Item> = await this.#call("GET", path, { query: { ...query, cursor } });
      yield* page.items;
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
  }

  async #call<Result>(method: string, path: string, options: Options = {}): Promise<Result> {
    const headers: Record<string, string> = { ...this.#headers, ...options.headers };
    if (options.body !== undefined) headers["content-type"] = "application/json";
    const body = options.body === undefined ? null : JSON.stringify(options.body);
    for (let failures = 1; ; failures += 1) {
      try {
        const signal = AbortSignal.timeout(this.#timeout);
        const response = await this.#fetch(this.#url(path, options.query ?? {}), { method, headers, body, signal });
        if (!response.ok) throw await ProblemError.of(response);
        const text = await response.text();
        return (text ? JSON.parse(text) : undefined) as Result;
      } catch (error) {
        if (failures >= (options.maxAttempts ?? this.#maxAttempts) || !isTemporary(error)) throw error;
        await waitAfter(error, failures);
      }
    }
  }

  #url(path: string, query: object): string {
    const url = new URL(this.#baseUrl + path);
    for (const [name, value] of Object.entries(query)) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined && each !== null) url.searchParams.append(name, String(each));
      }
    }
    return url.href;
  }
}

function path(texts: TemplateStringsArray, ...values: (number | string)[]): string {
  return String.raw({ raw: texts }, ...values.map((value) => encodeURIComponent(value)));
}
