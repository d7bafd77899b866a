// The addresses to which no more messages are sent.

import { api } from "./api.js";
import { onChange } from "./events.js";
import { Badge, Dialog, Empty, Field, html, Problem, Time, useAction, usePages } from "./ui.js";
import { useCallback, useEffect, useState } from "./vendor/htm-preact.js";

function pathOf(address, sender) {
  const query = sender ? `?sender=${encodeURIComponent(sender)}` : "";
  return `suppressions/${encodeURIComponent(address)}${query}`;
}

function Suppress({ onDone, onClose }) {
  const suppress = useAction(
    useCallback(async (fields) => {
      await api.put(pathOf(fields.get("address"), fields.get("sender")), { reason: fields.get("reason") });
      onDone();
    }, []),
  );
  const submit = (event) => {
    event.preventDefault();
    suppress.run(new FormData(event.target));
  };
  return html`
    <${Dialog} title="Suppress an address" onClose=${onClose}>
      <form onSubmit=${submit}>
        <${Field} label="Address"><input name="address" required autofocus /></${Field}>
        <${Field} label="Sender" hint="Only messages from this address; all by default"><input name="sender" /></${Field}>
        <${Field} label="Reason"><input name="reason" required /></${Field}>
        <${Problem} error=${suppress.error} />
        <div class="actions"><button class="primary" aria-disabled=${suppress.busy}>Suppress</button></div>
      </form>
    </${Dialog}>
  `;
}

function Row({ item, canWrite, onLifted }) {
  const lift = useAction(
    useCallback(async () => {
      await api.delete(pathOf(item.address, item.sender));
      onLifted();
    }, [item.address, item.sender]),
  );
  const ask = () => confirm(`Lift the suppression of ${item.address}?`) && lift.run();
  return html`
    <tr>
      <td>${item.address}</td>
      <td data-label="Sender">${item.sender || "all"}</td>
      <td><${Badge}>${item.source}</${Badge}> <span class="detail">${item.detail}</span></td>
      <td><${Time} at=${item.since} full /></td>
      <td>
        ${canWrite && html`<button type="button" class="quiet" aria-disabled=${lift.busy} onClick=${ask}>Lift</button>`}
        <${Problem} error=${lift.error} />
      </td>
    </tr>
  `;
}

export default function Suppressions({ caller }) {
  const [filter, setFilter] = useState({ address: "", channel: "" });
  const [isAdding, setIsAdding] = useState(false);
  const fetchPage = useCallback((cursor) => api.get("suppressions", { ...filter, cursor, limit: 50 }), [filter]);
  const { items, next, error, loading, more, reload } = usePages(fetchPage, [fetchPage]);
  useEffect(() => onChange("recipient.", reload), []);
  const canWrite = caller.access === "write";
  const change = (name) => (event) => setFilter((previous) => ({ ...previous, [name]: event.target.value.trim() }));
  return html`
    <div class="page">
      <header class="heading">
        <h1>Suppressions</h1>
        ${canWrite && html`<button type="button" class="primary" onClick=${() => setIsAdding(true)}>Suppress an address</button>`}
      </header>
      <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
        <input type="search" aria-label="Address" placeholder="Phone number or e-mail address" value=${filter.address} onChange=${change("address")} />
        <select aria-label="Channel" value=${filter.channel} onChange=${change("channel")}>
          <option value="">All channels</option><option value="sms">SMS and MMS</option><option value="email">E-mail</option>
        </select>
      </form>
      <${Problem} error=${error} retry=${reload} />
      ${!loading && !error && items.length === 0 &&
      html`<${Empty} title="No suppressions">
        ${filter.address
          ? "This address is not suppressed. Enter the whole phone number or e-mail address."
          : "No recipient has opted out."}
      </${Empty}>`}
      ${items.length > 0 &&
      html`
        <div class="table stacked" tabindex="0" role="region" aria-label="Suppressions">
          <table>
            <thead><tr><th>Address</th><th>Sender</th><th>Cause</th><th>Since</th><td></td></tr></thead>
            <tbody>
              ${items.map((item) => html`<${Row} key=${`${item.address} ${item.sender}`} item=${item} canWrite=${canWrite} onLifted=${reload} />`)}
            </tbody>
          </table>
        </div>
        ${next && html`<button type="button" class="quiet" aria-disabled=${loading} onClick=${more}>Load more</button>`}
      `}
      ${isAdding && html`<${Suppress} onClose=${() => setIsAdding(false)} onDone=${() => (setIsAdding(false), reload())} />`}
    </div>
  `;
}
