import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** Something that happened; its `type` determines the type of its `data`. */
export type Event =
  | Schemas["ConversationEvent"]
  | Schemas["DeadLetterEvent"]
  | Schemas["MessageEvent"]
  | Schemas["SuppressionEvent"]
  | Schemas["WebhookEndpointEvent"];

/** Parses server-sent events. */
export class EventParser {
  /** The id of the last event that was complete. */
  lastId: string | undefined;
  #id: string | undefined;
  #data: string[] = [];

  constructor(lastId?: string) {
    this.lastId = lastId;
  }

  /** Forgets an event that was interrupted, since the connection was lost. */
  reset(): void {
    this.#id = undefined;
    this.#data = [];
  }

  /** Parses a line, and returns the event that it completes. */
  feed(line: string): Event | undefined {
    if (line === "") return this.#complete();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.#id = value;
    if (name === "data") this.#data.push(value);
    return undefined;
  }

  #complete(): Event | undefined {
    const data = this.#data.join("\n");
    this.lastId = this.#id ?? this.lastId;
    this.reset();
    return data ? (JSON.parse(data) as Event) : undefined;
  }
}

/** Yields the lines of a body as they arrive; one that is not complete when the body ends is dropped. */
export async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
