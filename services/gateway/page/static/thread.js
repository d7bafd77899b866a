// The messages of a conversation as bubbles, oldest first, with the newest in view.

import { api, request } from "./api.js";
import { onEvent, onLive } from "./events.js";
import { Badge, bytes, html, Problem, StatusBadge, Time, useAction, useInterval, useLoaded } from "./ui.js";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

const PAGE = 50;
const FRAME_HEIGHT = 420; // pixels of an e-mail that are shown at first
const SCROLLBAR = 16;
const CANCELABLE = new Set(["scheduled", "retrying"]);
const ON_THE_WAY = new Set(["accepted", "retrying"]);

// Nothing in an e-mail may run, or be requested from another host.
const FRAME_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

function frameOf(htmlText) {
  return (
    `<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${FRAME_POLICY}">` +
    `<meta name="referrer" content="no-referrer"><base target="_blank">${htmlText}`
  );
}

function isHtml(message) {
  if (message.type !== "email") return false;
  return message.body_type ? message.body_type === "html" : /<[a-z!/][^>]*>/i.test(message.body);
}

/**
 * An e-mail in a frame as high as its content, up to a limit. Its sandbox allows no scripts. It allows the same origin,
 * so that the content can be measured.
 */
function EmailFrame({ message }) {
  const [height, setHeight] = useState(0);
  const [isWhole, setIsWhole] = useState(false);
  const frame = useRef(null);
  const measure = useCallback(() => {
    const content = frame.current?.contentDocument?.documentElement;
    if (content) setHeight(content.offsetHeight + (content.scrollWidth > content.clientWidth ? SCROLLBAR : 0));
  }, []);
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  return html`
    <iframe
      ref=${frame}
      sandbox="allow-same-origin"
      referrerpolicy="no-referrer"
      title="E-mail from ${message.from}"
      style=${{ height: `${isWhole ? height : Math.min(height, FRAME_HEIGHT)}px` }}
      onLoad=${measure}
      srcdoc=${frameOf(message.body)}
    ></iframe>
    ${height > FRAME_HEIGHT &&
    html`
      <button type="button" class="quiet" aria-expanded=${isWhole} onClick=${() => setIsWhole(!isWhole)}>
        ${isWhole ? "Show less" : "Show all"}
      </button>
    `}
  `;
}

/** A file that we stored. It is fetched with the API key, because links cannot carry it. */
function StoredFile({ file }) {
  const [source, setSource] = useState(null);
  const isImage = /^image\/(png|jpe?g|gif|webp)$/.test(file.content_type || "");
  const load = useCallback(async () => {
    const response = await request("GET", `media/${file.id}`);
    return URL.createObjectURL(await response.blob());
  }, [file.id]);
  useEffect(() => {
    if (!isImage || file.status !== "stored") return undefined;
    let url = null;
    load().then((found) => setSource((url = found)), () => {});
    return () => url && URL.revokeObjectURL(url);
  }, [file.id, file.status]);
  const download = async () => {
    const url = source || (await load());
    const link = Object.assign(document.createElement("a"), { href: url, download: file.filename || "attachment" });
    link.click();
  };
  const name = file.filename || file.content_type || "attachment";
  if (file.status !== "stored") return html`<span class="file">${name} <${Badge} kind="warn">${file.status}</${Badge}></span>`;
  return html`
    <button type="button" class="file" onClick=${download}>
      ${source && html`<img src=${source} alt=${name} />`}
      <span>${name} ${bytes(file.size)}</span>
    </button>
  `;
}

function Attachments({ message }) {
  if (message.media?.length) return message.media.map((file) => html`<${StoredFile} key=${file.id} file=${file} />`);
  return message.attachments.map((url) =>
    /^https?:/.test(url)
      ? html`<a class="file" href=${url} target="_blank" rel="noreferrer noopener">${url}</a>`
      : html`<span class="file">${url}</span>`,
  );
}

function History({ id, isOnTheWay }) {
  const { value, error, reload } = useLoaded((signal) => api.get(`messages/${id}`, null, signal), [id]);
  const end = useRef(null);
  useInterval(() => isOnTheWay && reload(), 2_000);
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [value === null]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!value) return html`<p class="loading">Loading</p>`;
  return html`
    ${value.history.length === 0
      ? html`<p class="ids">Received from ${value.provider}: <${Time} at=${value.created_at} full /></p>`
      : html`<${Entries} history=${value.history} />`}
    <p class="ids" ref=${end}>
      <span>Message <code>${value.id}</code></span>
      ${value.provider_message_id && html`<span>at ${value.provider} <code>${value.provider_message_id}</code></span>`}
      ${value.reference && html`<span>reference <code>${value.reference}</code></span>`}
    </p>
  `;
}

function Entries({ history }) {
  return html`
    <div class="table" tabindex="0" role="region" aria-label="History of the message">
      <table>
        <thead><tr><th>Status</th><th>Time</th><th>Attempt</th><th>Provider</th><th>Error</th></tr></thead>
        <tbody>
          ${history.map(
            (entry) => html`
              <tr>
                <td><${StatusBadge} status=${entry.status} /></td>
                <td><${Time} at=${entry.occurred_at} full /></td>
                <td>${entry.generation ? `${entry.generation}.${entry.attempt}` : entry.attempt || ""}</td>
                <td>${entry.provider || ""}</td>
                <td>${entry.error ? `${entry.error.code}${entry.error.detail ? `: ${entry.error.detail}` : ""}` : ""}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

function Bubble({ message, canWrite, onChange }) {
  const [isOpen, setIsOpen] = useState(false);
  const cancel = useAction(useCallback(() => api.delete(`messages/${message.id}`).then(onChange), [message.id]));
  return html`
    <li class="bubble ${message.direction}">
      <article>
        ${message.direction === "inbound" &&
        html`<p class="author">${message.from_name ? `${message.from_name} <${message.from}>` : message.from}</p>`}
        ${message.subject && html`<h3>${message.subject}</h3>`}
        ${isHtml(message)
          ? html`<${EmailFrame} message=${message} />`
          : message.body && html`<p class="text">${message.body}</p>`}
        <${Attachments} message=${message} />
        ${message.warnings?.map((warning) => html`<p class="warning">${warning}</p>`)}
        ${message.error && html`<p class="warning">${message.error.detail || message.error.code}</p>`}
        <footer>
          <${Time} at=${message.timestamp} inThread />
          ${message.segments && html`<span>${message.segments} ${message.segments === 1 ? "segment" : "segments"}</span>`}
          ${message.status === "scheduled" && message.send_at && html`<span>due <${Time} at=${message.send_at} full /></span>`}
          <${StatusBadge} status=${message.status} />
          <button type="button" class="quiet" aria-expanded=${isOpen} onClick=${() => setIsOpen(!isOpen)}>
            ${isOpen ? "Hide details" : "Details"}
          </button>
          ${canWrite && CANCELABLE.has(message.status) &&
          html`<button type="button" class="quiet" aria-disabled=${cancel.busy} onClick=${cancel.run}>Cancel</button>`}
        </footer>
        <${Problem} error=${cancel.error} />
        ${isOpen && html`<${History} key=${message.status} id=${message.id} isOnTheWay=${ON_THE_WAY.has(message.status)} />`}
      </article>
    </li>
  `;
}

/** Sort messages into the order of a conversation; a newer version of a message replaces the previous one. */
function merge(known, given) {
  const byId = new Map(known.map((message) => [message.id, message]));
  given.forEach((message) => byId.set(message.id, { ...byId.get(message.id), ...message }));
  return [...byId.values()].sort(
    (a, b) => a.created_at.localeCompare(b.created_at) || a.id.localeCompare(b.id),
  );
}

export function Thread({ conversation, caller }) {
  const [messages, setMessages] = useState([]);
  const [next, setNext] = useState(null);
  const [error, setError] = useState(null);
  const list = useRef(null);
  const isAtEnd = useRef(true);

  const load = useCallback(
    async (cursor, keepsNext = false) => {
      try {
        const page = await api.get("messages", { conversation: conversation.key, limit: PAGE, cursor });
        setMessages((previous) => merge(previous, page.items));
        if (!keepsNext) setNext(page.next_cursor);
        setError(null);
      } catch (failure) {
        setError(failure);
      }
    },
    [conversation.key],
  );

  useEffect(() => {
    const endEvents = onEvent((event) => {
      if (event.type.startsWith("message.") && event.data.conversation_key === conversation.key) {
        setMessages((previous) => merge(previous, [event.data]));
      }
    });
    // Events that are older than the stream cannot be resumed, so the newest messages are read again.
    const endLive = onLive(() => load(undefined, true));
    load();
    return () => {
      endEvents();
      endLive();
    };
  }, [load]);

  // No event reports a failed attempt that will be retried.
  useInterval(() => messages.some(({ status }) => ON_THE_WAY.has(status)) && load(undefined, true), 2_000);

  // The height also changes when an e-mail is measured or an image is loaded.
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => {
      if (isAtEnd.current) list.current.scrollTop = list.current.scrollHeight;
    });
    observer.observe(list.current.querySelector("ol"));
    return () => observer.disconnect();
  }, []);

  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = list.current;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < 40;
  };

  return html`
    <div class="messages" ref=${list} onScroll=${scrolled} tabindex="0" role="group" aria-label="Messages">
      ${next && html`<button type="button" class="quiet earlier" onClick=${() => load(next)}>Load earlier messages</button>`}
      <${Problem} error=${error} retry=${() => load()} />
      <ol>
        ${messages.map(
          (message) => html`
            <${Bubble}
              key=${message.id}
              message=${message}
              canWrite=${caller.access === "write"}
              onChange=${(changed) => setMessages((previous) => merge(previous, [changed]))}
            />
          `,
        )}
      </ol>
    </div>
  `;
}
