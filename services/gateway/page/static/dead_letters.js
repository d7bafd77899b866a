// Messages that could not be processed, with their reasons, their contents and the actions to resolve them.

import { api } from "./api.js";
import { onChange } from "./events.js";
import { Badge, Dialog, Empty, Field, html, Problem, StatusBadge, Time, useAction, useLoaded, usePages } from "./ui.js";
import { useCallback, useEffect, useState } from "./vendor/htm-preact.js";

const STATE_KINDS = { open: "bad", replayed: "info", discarded: "plain" };

function Reason({ title, onReason, onClose, error, busy }) {
  const submit = (event) => {
    event.preventDefault();
    onReason(new FormData(event.target).get("reason").trim());
  };
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      <form onSubmit=${submit}>
        <${Field} label="Reason"><input name="reason" required autofocus maxlength="500" /></${Field}>
        <${Problem} error=${error} />
        <div class="actions"><button class="danger" aria-disabled=${busy}>Discard</button></div>
      </form>
    </${Dialog}>
  `;
}

function Details({ id, canWrite, onResolved, onClose }) {
  const { value, error, reload } = useLoaded((signal) => load(id, signal), [id]);
  const [isDiscarding, setIsDiscarding] = useState(false);
  const replay = useAction(
    useCallback(async () => {
      await api.post(`dead-letters/${id}/replay`);
      onResolved();
    }, [id]),
  );
  const discard = useAction(
    useCallback(async (reason) => {
      await api.post(`dead-letters/${id}/discard`, { reason });
      setIsDiscarding(false);
      onResolved();
    }, [id]),
  );
  return html`
    <${Dialog} title="Dead letter" onClose=${onClose}>
      <${Problem} error=${error} retry=${reload} />
      ${value &&
      html`
        <dl class="facts">
          <dt>State</dt><dd><${Badge} kind=${STATE_KINDS[value.state]}>${value.state}</${Badge}></dd>
          <dt>Reason</dt><dd><code>${value.reason}</code> ${value.detail}</dd>
          <dt>Since</dt><dd><${Time} at=${value.created_at} full /></dd>
          ${value.message_id && html`<dt>Message</dt><dd><code>${value.message_id}</code></dd>`}
          ${value.resolution &&
          html`<dt>Resolved</dt><dd>by ${value.resolution.by} <${Time} at=${value.resolution.at} full /> ${value.resolution.reason}</dd>`}
        </dl>
        ${value.history.length > 0 &&
        html`
          <h3>History</h3>
          <ol class="history">
            ${value.history.map(
              (entry) => html`
                <li>
                  <${StatusBadge} status=${entry.status} /> <${Time} at=${entry.occurred_at} full />
                  ${[entry.provider, entry.error?.code, entry.error?.detail].filter(Boolean).map((text) => ` ${text}`)}
                </li>
              `,
            )}
          </ol>
        `}
        <h3>${value.message ? "Message" : "Payload"}</h3>
        <pre tabindex="0">${value.message ? describe(value.message) : payloadOf(value)}</pre>
        <${Problem} error=${replay.error} />
        ${canWrite && value.state === "open" &&
        html`
          <div class="actions">
            <button type="button" onClick=${() => setIsDiscarding(true)}>Discard</button>
            <button type="button" class="primary" aria-disabled=${replay.busy} onClick=${replay.run}>Replay</button>
          </div>
        `}
      `}
      ${isDiscarding &&
      html`<${Reason} title="Discard the dead letter" onReason=${discard.run} error=${discard.error} busy=${discard.busy} onClose=${() => setIsDiscarding(false)} />`}
    </${Dialog}>
  `;
}

/** Load a dead letter with its message, if that is stored. */
async function load(id, signal) {
  const deadLetter = await api.get(`dead-letters/${id}`, null, signal);
  if (!deadLetter.message_id) return deadLetter;
  const message = await api.get(`messages/${deadLetter.message_id}`, null, signal).catch(() => null);
  return { ...deadLetter, message };
}

function describe({ from, recipients, subject, body, attachments }) {
  const fields = { From: from, To: recipients.join(", "), Subject: subject, Attachments: attachments.join(" ") };
  const lines = Object.entries(fields).filter(([, value]) => value).map(([name, value]) => `${name}: ${value}`);
  return [...lines, "", body].join("\n");
}

function payloadOf(deadLetter) {
  const payload = deadLetter.payload ?? deadLetter.payload_base64 ?? deadLetter.payload_zlib ?? "";
  try {
    return JSON.stringify(JSON.parse(payload), null, 2);
  } catch {
    return payload;
  }
}

/** Resolve all dead letters of a filter, page by page, and return their number. */
async function resolveAll(action, filter, reason) {
  let cursor = null;
  let resolved = 0;
  let skipped = 0;
  do {
    const conditions = Object.fromEntries(Object.entries(filter).filter(([name, value]) => value && name !== "state"));
    const selection = Object.keys(conditions).length ? { filter: conditions } : { all: true };
    const answer = await api.post(`dead-letters/${action}`, {
      ...selection,
      ...(reason ? { reason } : {}),
      ...(cursor ? { cursor } : {}),
    });
    resolved += answer.resolved;
    skipped += answer.skipped.length;
    cursor = answer.next_cursor;
  } while (cursor);
  return { resolved, skipped };
}

export default function DeadLetters({ parameters, caller }) {
  const [filter, setFilter] = useState({ state: "open", channel: "", direction: "", reason: "" });
  const [selected, setSelected] = useState(parameters[0] || null);
  const [isDiscarding, setIsDiscarding] = useState(false);
  const [result, setResult] = useState("");
  const fetchPage = useCallback((cursor) => api.get("dead-letters", { ...filter, cursor, limit: 50 }), [filter]);
  const { items, next, error, loading, more, reload } = usePages(fetchPage, [fetchPage]);
  const resolve = useAction(
    useCallback(
      async (action, reason) => {
        const { resolved, skipped } = await resolveAll(action, filter, reason);
        const verb = action === "replay" ? "replayed" : "discarded";
        setResult(`${resolved} ${verb}${skipped ? `, ${skipped} skipped` : ""}`);
        setIsDiscarding(false);
        reload();
      },
      [filter],
    ),
  );
  useEffect(() => onChange("dead_letter.", reload), []);
  const change = (name) => (event) => setFilter((previous) => ({ ...previous, [name]: event.target.value.trim() }));
  const canWrite = caller.access === "write";
  return html`
    <div class="page">
      <header class="heading">
        <h1>Dead letters</h1>
        ${canWrite && filter.state === "open" && items.length > 0 &&
        html`
          <button type="button" onClick=${() => setIsDiscarding(true)}>Discard all</button>
          <button type="button" class="primary" aria-disabled=${resolve.busy} onClick=${() => confirm("Replay all open dead letters of this filter?") && resolve.run("replay")}>Replay all</button>
        `}
      </header>
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <select aria-label="State" value=${filter.state} onChange=${change("state")}>
          <option value="open">Open</option>
          <option value="replayed">Replayed</option>
          <option value="discarded">Discarded</option>
          <option value="">All</option>
        </select>
        <select aria-label="Channel" value=${filter.channel} onChange=${change("channel")}>
          <option value="">All channels</option><option value="sms">SMS and MMS</option><option value="email">E-mail</option>
        </select>
        <select aria-label="Direction" value=${filter.direction} onChange=${change("direction")}>
          <option value="">Both directions</option><option value="inbound">Inbound</option><option value="outbound">Outbound</option>
        </select>
        <input aria-label="Reason" placeholder="Reason, such as http_503" value=${filter.reason} onChange=${change("reason")} />
      </form>
      <p role="status">${result}</p>
      <${Problem} error=${error || resolve.error} retry=${reload} />
      ${!loading && !error && items.length === 0 &&
      html`<${Empty} title="No dead letters">
        ${Object.values(filter).some((value) => value && value !== "open")
          ? "No dead letter matches the filters."
          : "Everything that was accepted has been processed."}
      </${Empty}>`}
      ${items.length > 0 &&
      html`
        <div class="table stacked" tabindex="0" role="region" aria-label="Dead letters">
          <table>
            <thead><tr><th>Since</th><th>State</th><th>Direction</th><th>Channel</th><th>Reason</th><td></td></tr></thead>
            <tbody>
              ${items.map(
                (item) => html`
                  <tr key=${item.id}>
                    <td><${Time} at=${item.created_at} full /></td>
                    <td><${Badge} kind=${STATE_KINDS[item.state]}>${item.state}</${Badge}></td>
                    <td>${item.direction}</td>
                    <td>${item.channel || ""}</td>
                    <td><code>${item.reason}</code> <span class="detail">${item.detail}</span></td>
                    <td><button type="button" class="quiet" onClick=${() => setSelected(item.id)}>Open</button></td>
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </div>
        ${next && html`<button type="button" class="quiet" aria-disabled=${loading} onClick=${more}>Load more</button>`}
      `}
      ${selected &&
      html`<${Details} key=${selected} id=${selected} canWrite=${canWrite} onClose=${() => setSelected(null)} onResolved=${() => {
        setSelected(null);
        reload();
      }} />`}
      ${isDiscarding &&
      html`<${Reason} title="Discard all dead letters that match this filter" busy=${resolve.busy} error=${resolve.error}
        onReason=${(reason) => resolve.run("discard", reason)} onClose=${() => setIsDiscarding(false)} />`}
    </div>
  `;
}
