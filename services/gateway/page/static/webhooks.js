// The webhook endpoints of applications, with the attempts to deliver events to them.

import { api } from "./api.js";
import { Badge, Dialog, Empty, Field, html, Problem, Time, useAction, useLoaded, usePages } from "./ui.js";
import { useCallback, useState } from "./vendor/htm-preact.js";

function Attempts({ endpoint, canWrite, onClose }) {
  const fetchPage = useCallback(
    (cursor) => api.get(`webhook-endpoints/${endpoint.id}/attempts`, { cursor, limit: 50 }),
    [endpoint.id],
  );
  const { items, next, error, loading, more, reload } = usePages(fetchPage, [fetchPage]);
  const retry = useAction(
    useCallback((id) => api.post(`webhook-endpoints/${endpoint.id}/attempts/${id}/retry`), [endpoint.id]),
  );
  return html`
    <${Dialog} title="Attempts" onClose=${onClose}>
      <p class="ids"><code>${endpoint.url}</code></p>
      <${Problem} error=${error || retry.error} retry=${reload} />
      ${!loading && items.length === 0 && html`<p>No event has been sent to this endpoint yet.</p>`}
      <div class="table" tabindex="0" role="region" aria-label="Attempts">
        <table>
          ${items.length > 0 && html`<thead><tr><th>Time</th><th>Event and response</th><th>Status</th><th>Duration</th><th></th></tr></thead>`}
          <tbody>
            ${items.map(
              (attempt) => html`
                <tr key=${attempt.id}>
                  <td><${Time} at=${attempt.started_at} full /></td>
                  <td>${attempt.event_type} <code class="detail">${attempt.response}</code></td>
                  <td><${Badge} kind=${attempt.succeeded ? "good" : "bad"}>${attempt.status_code ?? attempt.error}</${Badge}></td>
                  <td class="number">${attempt.duration_ms} ms</td>
                  <td>
                    ${canWrite && !attempt.succeeded &&
                    html`<button type="button" class="quiet" onClick=${() => retry.run(attempt.id)}>Retry</button>`}
                  </td>
                </tr>
              `,
            )}
          </tbody>
        </table>
      </div>
      ${next && html`<button type="button" class="quiet" disabled=${loading} onClick=${more}>Load more</button>`}
      <div class="actions"><button type="button" onClick=${reload}>Refresh</button></div>
    </${Dialog}>
  `;
}

function Create({ onDone, onClose }) {
  const [secret, setSecret] = useState(null);
  const create = useAction(
    useCallback(async (form) => {
      const fields = new FormData(form);
      const types = fields.get("types").split(/[\s,]+/).filter(Boolean);
      const body = { url: fields.get("url"), ...(types.length ? { event_types: types } : {}) };
      if (fields.get("description")) body.description = fields.get("description");
      const endpoint = await api.post("webhook-endpoints", body);
      setSecret(endpoint.secret);
      onDone();
    }, []),
  );
  const submit = (event) => {
    event.preventDefault();
    create.run(event.target);
  };
  if (secret) {
    return html`
      <${Dialog} title="Endpoint added" onClose=${onClose}>
        <p>Verify the signatures with this secret. It is not shown again.</p>
        <pre tabindex="0">${secret}</pre>
        <div class="actions"><button type="button" class="primary" onClick=${onClose}>Done</button></div>
      </${Dialog}>
    `;
  }
  return html`
    <${Dialog} title="Add an endpoint" onClose=${onClose}>
      <form onSubmit=${submit}>
        <${Field} label="URL"><input name="url" type="url" required autofocus placeholder="https://example.com/webhooks" /></${Field}>
        <${Field} label="Events" hint="Types such as message.received; all by default"><input name="types" /></${Field}>
        <${Field} label="Description"><input name="description" /></${Field}>
        <${Problem} error=${create.error} />
        <div class="actions"><button class="primary" disabled=${create.busy}>Add</button></div>
      </form>
    </${Dialog}>
  `;
}

function Row({ endpoint, canWrite, onChange, onOpen }) {
  const act = useAction(
    useCallback(async (action) => {
      await action();
      onChange();
    }, []),
  );
  const path = `webhook-endpoints/${endpoint.id}`;
  const isEnabled = endpoint.state === "enabled";
  const toggle = () => api.patch(path, { state: isEnabled ? "disabled" : "enabled" });
  return html`
    <tr>
      <td><code>${endpoint.url}</code><span class="detail">${endpoint.description}</span></td>
      <td>${endpoint.event_types.length ? endpoint.event_types.join(", ") : "all"}</td>
      <td><${Badge} kind=${isEnabled ? "good" : "warn"}>${endpoint.state}</${Badge}>
        ${endpoint.disabled_reason && html`<span class="detail">${endpoint.disabled_reason}</span>`}</td>
      <td class="buttons">
        <button type="button" class="quiet" onClick=${onOpen}>Attempts</button>
        ${canWrite &&
        html`
          <button type="button" class="quiet" disabled=${act.busy} onClick=${() => act.run(() => api.post(`${path}/test`))}>Test</button>
          <button type="button" class="quiet" disabled=${act.busy} onClick=${() => act.run(toggle)}>${isEnabled ? "Disable" : "Enable"}</button>
          <button type="button" class="quiet" disabled=${act.busy} onClick=${() => confirm(`Delete the endpoint ${endpoint.url}?`) && act.run(() => api.delete(path))}>Delete</button>
        `}
        <${Problem} error=${act.error} />
      </td>
    </tr>
  `;
}

export default function Webhooks({ caller }) {
  const { value, error, reload } = useLoaded((signal) => api.get("webhook-endpoints", null, signal), []);
  const [opened, setOpened] = useState(null);
  const [isAdding, setIsAdding] = useState(false);
  const canWrite = caller.access === "write";
  return html`
    <div class="page">
      <header class="heading">
        <h1>Webhooks</h1>
        ${canWrite && html`<button type="button" class="primary" onClick=${() => setIsAdding(true)}>Add an endpoint</button>`}
      </header>
      <${Problem} error=${error} retry=${reload} />
      ${value && value.items.length === 0 &&
      html`<${Empty} title="No endpoints">Add one to notify an application of replies, deliveries and failures.</${Empty}>`}
      ${value && value.items.length > 0 &&
      html`
        <div class="table" tabindex="0" role="region" aria-label="Endpoints">
          <table>
            <thead><tr><th>URL</th><th>Events</th><th>State</th><td></td></tr></thead>
            <tbody>
              ${value.items.map(
                (endpoint) => html`
                  <${Row} key=${endpoint.id} endpoint=${endpoint} canWrite=${canWrite} onChange=${reload} onOpen=${() => setOpened(endpoint)} />
                `,
              )}
            </tbody>
          </table>
        </div>
      `}
      ${opened && html`<${Attempts} endpoint=${opened} canWrite=${canWrite} onClose=${() => setOpened(null)} />`}
      ${isAdding && html`<${Create} onDone=${reload} onClose=${() => setIsAdding(false)} />`}
    </div>
  `;
}
