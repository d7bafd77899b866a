// The webhook endpoints of applications, with the attempts to deliver events to them.

import { api } from "./api.js";
import { onChange } from "./events.js";
import { Badge, Dialog, Empty, Field, html, Problem, Time, useAction, usePages } from "./ui.js";
import { useCallback, useEffect, useState } from "./vendor/htm-preact.js";

const EVENT_TYPES = [
  "message.received",
  "message.accepted",
  "message.scheduled",
  "message.sent",
  "message.delivered",
  "message.undelivered",
  "message.failed",
  "message.expired",
  "message.canceled",
  "conversation.created",
  "recipient.opted_out",
  "recipient.opted_in",
  "dead_letter.created",
  "dead_letter.resolved",
  "webhook_endpoint.disabled",
];
const CHANNELS = { sms: "SMS and MMS", email: "E-mail" };
const OUTCOME_TIMEOUT = 20_000; // milliseconds
const OUTCOME_INTERVAL = 500;

/** Return the first attempt to send an event after the known one, or null if there is none within the timeout. */
async function newAttempt(path, eventId, known) {
  const end = Date.now() + OUTCOME_TIMEOUT;
  while (Date.now() < end) {
    const { items } = await api.get(`${path}/attempts`, { event_id: eventId, limit: 1 });
    if (items.length && items[0].id !== known) return items[0];
    await new Promise((resolve) => setTimeout(resolve, OUTCOME_INTERVAL));
  }
  return null;
}

function Outcome({ title, busy, result }) {
  return html`
    <p class="outcome" role="status">
      ${busy
        ? `${title}: waiting for the response`
        : result &&
          (result.attempt
            ? html`${title}: <${Response} attempt=${result.attempt} /> after ${result.attempt.duration_ms} ms
                ${!result.attempt.succeeded && html`<code class="detail">${result.attempt.response}</code>`}`
            : `${title}: not sent yet. The outcome will be listed among the attempts.`)}
    </p>
  `;
}

function Response({ attempt }) {
  return html`<${Badge} kind=${attempt.succeeded ? "good" : "bad"}>${attempt.status_code ?? attempt.error}</${Badge}>`;
}

function Attempts({ endpoint, canWrite, onClose }) {
  const path = `webhook-endpoints/${endpoint.id}`;
  const [succeeded, setSucceeded] = useState("");
  const fetchPage = useCallback(
    (cursor) => api.get(`${path}/attempts`, { succeeded, cursor, limit: 50 }),
    [path, succeeded],
  );
  const { items, next, error, loading, more, reload } = usePages(fetchPage, [fetchPage]);
  const [outcome, setOutcome] = useState(null);
  const retry = useAction(
    useCallback(
      async ({ id, event_id }) => {
        const { items: newest } = await api.get(`${path}/attempts`, { event_id, limit: 1 });
        await api.post(`${path}/attempts/${id}/retry`);
        setOutcome({ attempt: await newAttempt(path, event_id, newest[0]?.id) });
        reload();
      },
      [path],
    ),
  );
  return html`
    <${Dialog} title="Attempts" onClose=${onClose}>
      <p class="ids"><code>${endpoint.url}</code></p>
      <div class="filters">
        <select aria-label="Outcome" value=${succeeded} onChange=${(event) => setSucceeded(event.target.value)}>
          <option value="">All attempts</option><option value="false">Failed</option><option value="true">Successful</option>
        </select>
        <button type="button" onClick=${reload}>Refresh</button>
      </div>
      <${Outcome} title="Retry" busy=${retry.busy} result=${outcome} />
      <${Problem} error=${error || retry.error} retry=${reload} />
      ${!loading && items.length === 0 && html`<p>No attempts.</p>`}
      ${items.length > 0 &&
      html`
        <div class="table stacked attempts" tabindex="0" role="region" aria-label="Attempts">
          <table>
            <thead><tr><th>Status</th><th>Time</th><th>Event and response</th><th>Duration</th><td></td></tr></thead>
            <tbody>
              ${items.map(
                (attempt) => html`
                  <tr key=${attempt.id}>
                    <td><${Response} attempt=${attempt} /></td>
                    <td><${Time} at=${attempt.started_at} full /></td>
                    <td>
                      ${attempt.event_type} <span class="muted">attempt ${attempt.attempt}</span>
                      <code class="detail" title=${attempt.response}>${attempt.response}</code>
                      ${attempt.next_attempt_at && html`<span class="detail">Next attempt <${Time} at=${attempt.next_attempt_at} full /></span>`}
                    </td>
                    <td class="number">${attempt.duration_ms} ms</td>
                    <td>
                      ${canWrite && !attempt.succeeded && attempt.trigger !== "test" &&
                      html`<button type="button" class="quiet" aria-disabled=${retry.busy} onClick=${() => retry.run(attempt)}>Retry</button>`}
                    </td>
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </div>
      `}
      ${next && html`<button type="button" class="quiet" aria-disabled=${loading} onClick=${more}>Load more</button>`}
    </${Dialog}>
  `;
}

function Choices({ legend, name, options, chosen }) {
  return html`
    <fieldset>
      <legend>${legend}</legend>
      <div class="checks">
        ${Object.entries(options).map(
          ([value, title]) => html`
            <label class="check"><input type="checkbox" name=${name} value=${value} defaultChecked=${chosen.includes(value)} /> ${title}</label>
          `,
        )}
      </div>
    </fieldset>
  `;
}

function fieldsOf(form) {
  const data = new FormData(form);
  return {
    url: data.get("url").trim(),
    description: data.get("description").trim(),
    event_types: data.getAll("event_types"),
    channels: data.getAll("channels"),
    addresses: data.get("addresses").split(/[\n,;]+/).map((address) => address.trim()).filter(Boolean),
  };
}

const NEW = { url: "", description: "", event_types: [], channels: [], addresses: [] };

/** The form that creates an endpoint, or changes the given one. */
function EndpointForm({ endpoint = NEW, title, action, onSubmit, onClose }) {
  const submitting = useAction(onSubmit);
  const submit = (event) => {
    event.preventDefault();
    submitting.run(fieldsOf(event.target));
  };
  const types = Object.fromEntries(EVENT_TYPES.map((type) => [type, type]));
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      <form onSubmit=${submit}>
        <${Field} label="URL"><input name="url" type="url" required autofocus placeholder="https://example.com/webhooks" defaultValue=${endpoint.url} /></${Field}>
        <${Field} label="Description"><input name="description" defaultValue=${endpoint.description} /></${Field}>
        <${Choices} legend="Events (all if none is selected)" name="event_types" options=${types} chosen=${endpoint.event_types} />
        <${Choices} legend="Channels (both if none is selected)" name="channels" options=${CHANNELS} chosen=${endpoint.channels} />
        <${Field} label="Your addresses" hint="Only events of these numbers or e-mail addresses, separated by commas (all if empty)">
          <input name="addresses" defaultValue=${endpoint.addresses.join(", ")} />
        </${Field}>
        <${Problem} error=${submitting.error} />
        <div class="actions"><button class="primary" aria-disabled=${submitting.busy}>${action}</button></div>
      </form>
    </${Dialog}>
  `;
}

function Secret({ title, secret, onClose }) {
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      <p>Verify the signatures with this secret. It is not shown again.</p>
      <pre class="secret" tabindex="0">${secret}</pre>
      <div class="actions"><button type="button" class="primary" onClick=${onClose}>Done</button></div>
    </${Dialog}>
  `;
}

function Create({ onDone, onClose }) {
  const [secret, setSecret] = useState(null);
  const create = useCallback(async (fields) => {
    const endpoint = await api.post("webhook-endpoints", fields);
    setSecret(endpoint.secret);
    onDone();
  }, []);
  return secret
    ? html`<${Secret} key="secret" title="Endpoint added" secret=${secret} onClose=${onClose} />`
    : html`<${EndpointForm} key="form" title="Add an endpoint" action="Add" onSubmit=${create} onClose=${onClose} />`;
}

function Edit({ endpoint, onDone, onClose }) {
  const save = useCallback(
    async (fields) => {
      const changed = Object.entries(fields).filter(([name, value]) => String(value) !== String(endpoint[name]));
      if (changed.length) await api.patch(`webhook-endpoints/${endpoint.id}`, Object.fromEntries(changed));
      onDone();
      onClose();
    },
    [endpoint],
  );
  return html`<${EndpointForm} endpoint=${endpoint} title="Edit the endpoint" action="Save" onSubmit=${save} onClose=${onClose} />`;
}

function Rotate({ endpoint, onDone, onClose }) {
  const [secret, setSecret] = useState(null);
  const rotate = useAction(
    useCallback(async () => {
      const changed = await api.post(`webhook-endpoints/${endpoint.id}/rotate-secret`);
      setSecret(changed.secret);
      onDone();
    }, [endpoint.id]),
  );
  if (secret) return html`<${Secret} key="secret" title="New secret" secret=${secret} onClose=${onClose} />`;
  return html`
    <${Dialog} key="question" title="Rotate the secret" onClose=${onClose}>
      <p>The endpoint gets a new secret. For 24 hours, webhooks are also signed with the former one.</p>
      <${Problem} error=${rotate.error} />
      <div class="actions"><button type="button" class="primary" aria-disabled=${rotate.busy} onClick=${rotate.run}>Rotate secret</button></div>
    </${Dialog}>
  `;
}

/** Schedule the events since a time that the endpoint has not received, and return their number. */
async function recoverSince(path, since) {
  let scheduled = 0;
  let after = 0;
  do {
    const answer = await api.post(`${path}/recover`, { since, after });
    scheduled += answer.scheduled;
    after = answer.next_after;
  } while (after !== null);
  return scheduled;
}

function Recover({ endpoint, onClose }) {
  const [scheduled, setScheduled] = useState(null);
  const recover = useAction(
    useCallback(
      async (form) => {
        const since = new Date(new FormData(form).get("since")).toISOString();
        setScheduled(await recoverSince(`webhook-endpoints/${endpoint.id}`, since));
      },
      [endpoint.id],
    ),
  );
  const submit = (event) => {
    event.preventDefault();
    recover.run(event.target);
  };
  return html`
    <${Dialog} title="Recover events" onClose=${onClose}>
      <form onSubmit=${submit}>
        <p>All events since this time that the endpoint has not received will be sent to it, oldest first.</p>
        <${Field} label="Since"><input name="since" type="datetime-local" required autofocus /></${Field}>
        <p role="status">${scheduled !== null && `${scheduled} ${scheduled === 1 ? "event is" : "events are"} about to be sent.`}</p>
        <${Problem} error=${recover.error} />
        <div class="actions"><button class="primary" aria-disabled=${recover.busy}>Recover</button></div>
      </form>
    </${Dialog}>
  `;
}

const DIALOGS = { attempts: Attempts, edit: Edit, rotate: Rotate, recover: Recover };

function Filters({ endpoint }) {
  const { event_types: types, channels, addresses } = endpoint;
  return html`
    <dl class="facts">
      <dt>Events</dt><dd>${types.length ? types.join(", ") : "all"}</dd>
      ${channels.length > 0 && html`<dt>Channels</dt><dd>${channels.map((channel) => CHANNELS[channel]).join(", ")}</dd>`}
      ${addresses.length > 0 && html`<dt>Addresses</dt><dd>${addresses.join(", ")}</dd>`}
      ${endpoint.former_secret_expires_at &&
      html`<dt>Secret</dt><dd>webhooks are also signed with the former one until <${Time} at=${endpoint.former_secret_expires_at} full /></dd>`}
    </dl>
  `;
}

function Endpoint({ endpoint, canWrite, onChange, onOpen }) {
  const path = `webhook-endpoints/${endpoint.id}`;
  const isEnabled = endpoint.state === "enabled";
  const [outcome, setOutcome] = useState(null);
  const act = useAction(
    useCallback(async (action) => {
      await action();
      onChange();
    }, []),
  );
  const test = useAction(
    useCallback(async () => {
      const { event_id } = await api.post(`${path}/test`);
      setOutcome({ attempt: await newAttempt(path, event_id) });
    }, [path]),
  );
  const toggle = () => act.run(() => api.patch(path, { state: isEnabled ? "disabled" : "enabled" }));
  const remove = () => confirm(`Delete the endpoint ${endpoint.url}?`) && act.run(() => api.delete(path));
  return html`
    <article class="card" aria-label=${endpoint.url}>
      <header class="heading">
        <h2><code>${endpoint.url}</code></h2>
        <${Badge} kind=${isEnabled ? "good" : "warn"}>${endpoint.state}</${Badge}>
        ${endpoint.disabled_reason && html`<span class="muted">${endpoint.disabled_reason} <${Time} at=${endpoint.disabled_at} full /></span>`}
      </header>
      ${endpoint.description && html`<p>${endpoint.description}</p>`}
      <${Filters} endpoint=${endpoint} />
      <div class="buttons">
        <button type="button" onClick=${() => onOpen("attempts", endpoint)}>Attempts</button>
        ${canWrite &&
        html`
          <button type="button" disabled=${!isEnabled} aria-disabled=${test.busy} onClick=${test.run}>Test</button>
          <button type="button" onClick=${() => onOpen("edit", endpoint)}>Edit</button>
          <button type="button" aria-disabled=${act.busy} onClick=${toggle}>${isEnabled ? "Disable" : "Enable"}</button>
          <button type="button" disabled=${!isEnabled} onClick=${() => onOpen("recover", endpoint)}>Recover</button>
          <button type="button" onClick=${() => onOpen("rotate", endpoint)}>Rotate secret</button>
          <button type="button" aria-disabled=${act.busy} onClick=${remove}>Delete</button>
        `}
      </div>
      <${Outcome} title="Test" busy=${test.busy} result=${outcome} />
      <${Problem} error=${act.error || test.error} />
    </article>
  `;
}

export default function Webhooks({ caller }) {
  const fetchPage = useCallback((cursor) => api.get("webhook-endpoints", { cursor, limit: 100 }), []);
  const { items, next, error, loading, more, reload } = usePages(fetchPage, []);
  useEffect(() => onChange("webhook_endpoint.", reload), []);
  const [opened, setOpened] = useState(null);
  const [isAdding, setIsAdding] = useState(false);
  const canWrite = caller.access === "write";
  const Opened = opened && DIALOGS[opened.dialog];
  return html`
    <div class="page">
      <header class="heading">
        <h1>Webhooks</h1>
        ${canWrite && html`<button type="button" class="primary" onClick=${() => setIsAdding(true)}>Add an endpoint</button>`}
      </header>
      <${Problem} error=${error} retry=${reload} />
      ${!loading && !error && items.length === 0 &&
      html`<${Empty} title="No endpoints">Add one to notify an application of replies, deliveries and failures.</${Empty}>`}
      ${items.map(
        (endpoint) => html`
          <${Endpoint} key=${endpoint.id} endpoint=${endpoint} canWrite=${canWrite} onChange=${reload}
            onOpen=${(dialog, chosen) => setOpened({ dialog, endpoint: chosen })} />
        `,
      )}
      ${next && html`<button type="button" class="quiet" aria-disabled=${loading} onClick=${more}>Load more</button>`}
      ${opened && html`<${Opened} endpoint=${opened.endpoint} canWrite=${canWrite} onDone=${reload} onClose=${() => setOpened(null)} />`}
      ${isAdding && html`<${Create} onDone=${reload} onClose=${() => setIsAdding(false)} />`}
    </div>
  `;
}
