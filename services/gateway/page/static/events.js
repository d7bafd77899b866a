// The live events of the API, as server-sent events. `EventSource` cannot send an API key, so the stream is
// read with `fetch`. After an interruption, it resumes after the last event that was received.

import { authorization, BASE } from "./api.js";

const listeners = new Set();
const stateListeners = new Set();
let state = "connecting";
let lastId = null;
let controller = null;

/** Call a function with each event; return a function that unsubscribes it. */
export function onEvent(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Call a function with the state of the connection, now and whenever it changes: connecting, live or lost. */
export function onConnection(listener) {
  stateListeners.add(listener);
  listener(state);
  return () => stateListeners.delete(listener);
}

/** Call a function whenever the connection becomes live; return a function that unsubscribes it. */
export function onLive(listener) {
  let previous = state;
  return onConnection((now) => {
    if (now === "live" && previous !== "live") listener();
    previous = now;
  });
}

const SETTLE = 300; // milliseconds in which further events lead to a single call

/** Call a function soon after events whose types have a prefix, and when the connection is live again. */
export function onChange(prefix, listener) {
  let timer = null;
  const soon = () => {
    timer ??= setTimeout(() => {
      timer = null;
      listener();
    }, SETTLE);
  };
  const endEvents = onEvent((event) => event.type.startsWith(prefix) && soon());
  const endLive = onLive(soon);
  return () => {
    clearTimeout(timer);
    endEvents();
    endLive();
  };
}

function become(next) {
  if (state === next) return;
  state = next;
  stateListeners.forEach((listener) => listener(state));
}

/** Parse a stream of server-sent events (WHATWG HTML, section 9.2) and yield each event with its id. */
async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let event = { id: null, data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const lines = buffer.split(/\r\n|\n|\r/);
    buffer = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) yield { id: event.id, data: event.data.join("\n") };
        event = { id: event.id, data: [] };
        continue;
      }
      const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "id") event.id = text;
      if (field === "data") event.data.push(text);
    }
  }
}

async function follow(signal) {
  const headers = { Accept: "text/event-stream", ...authorization() };
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const response = await fetch(new URL("events", BASE), { headers, signal });
  // Events that are this old are gone. The views load their lists again when the connection is back.
  if (response.status === 410) lastId = null;
  if (!response.ok) throw new Error(`The event stream responded with ${response.status}`);
  become("live");
  for await (const { id, data } of parse(response.body)) {
    lastId = id;
    const event = JSON.parse(data);
    listeners.forEach((listener) => listener(event));
  }
}

/** Follow the events until `disconnect` is called, and reconnect after each interruption. */
export async function connect() {
  disconnect();
  const { signal } = (controller = new AbortController());
  let pause = 500;
  while (!signal.aborted) {
    const startedAt = Date.now();
    try {
      await follow(signal);
    } catch {
      // The state informs the user; the cause does not matter here.
    }
    if (signal.aborted) return;
    become("lost");
    if (Date.now() - startedAt > 5000) pause = 500;
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 8000);
  }
}

export function disconnect() {
  controller?.abort();
  controller = null;
}
