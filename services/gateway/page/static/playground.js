// The controls of the mock providers: make them fail, and simulate inbound messages.

import { api } from "./api.js";
import { Field, html, Problem, useAction, useInterval, useLoaded } from "./ui.js";
import { useCallback, useState } from "./vendor/htm-preact.js";

const BEHAVIOURS = [
  { title: "Normal", text: "Every message is accepted.", body: null },
  { title: "Fail the next three", text: "Three requests get a 500, then it is normal again. Watch the retries.", body: { status: 500, times: 3 } },
  { title: "Fail", text: "Every request gets a 500, until you select Normal.", body: { status: 500 } },
  { title: "Limit", text: "Two requests get a 429 with a Retry-After of 10 seconds.", body: { status: 429, retry_after: 10, times: 2 } },
  { title: "Slow", text: "Every response takes two seconds.", body: { latency_ms: 2000 } },
  { title: "Refuse", text: "The next request gets a 400, and its message becomes a dead letter.", body: { status: 400, times: 1 } },
  { title: "Disconnect", text: "Three connections are closed without a response.", body: { drop_connection: true, times: 3 } },
];

function Behaviour({ channel }) {
  const { value, error, reload } = useLoaded((signal) => api.get(`playground/${channel}/behaviour`, null, signal), [channel]);
  useInterval(reload, 2_000);
  const set = useAction(
    useCallback(
      async (body) => {
        const path = `playground/${channel}/behaviour`;
        await (body ? api.put(path, body) : api.delete(path));
        reload();
      },
      [channel],
    ),
  );
  const isCurrent = (body) =>
    value && (body ? Object.entries(body).every(([name, wanted]) => name === "times" || value[name] === wanted) && (value.times === null) === !body.times : isNormal(value));
  return html`
    <h3>The provider</h3>
    <div class="choices">
      ${BEHAVIOURS.map(
        ({ title, text, body }) => html`
          <button type="button" class="choice" aria-pressed=${isCurrent(body) ? "true" : "false"} aria-disabled=${set.busy} onClick=${() => set.run(body)}>
            <strong>${title}</strong><span>${text}</span>
          </button>
        `,
      )}
    </div>
    <${Problem} error=${error || set.error} />
  `;
}

function isNormal(behaviour) {
  return !behaviour.status && !behaviour.latency_ms && !behaviour.drop_connection && !behaviour.hang && !behaviour.ambiguous;
}

function Contact({ channel }) {
  const isSms = channel === "sms";
  const [count, setCount] = useState(0);
  const write = useAction(
    useCallback(
      async (form) => {
        const fields = Object.fromEntries(new FormData(form));
        await api.post(`playground/${channel}/inbound`, Object.fromEntries(Object.entries(fields).filter(([, value]) => value)));
        form.elements.body.value = "";
        setCount((previous) => previous + 1);
      },
      [channel],
    ),
  );
  const submit = (event) => {
    event.preventDefault();
    write.run(event.target);
  };
  return html`
    <h3>Inbound message</h3>
    <form class="contact" onSubmit=${submit}>
      <${Field} label="From"><input name="from" required value=${isSms ? "+18045551234" : "contact@example.com"} /></${Field}>
      <${Field} label="To"><input name="to" required value=${isSms ? "+12016661234" : "office@example.org"} /></${Field}>
      ${!isSms && html`<${Field} label="Subject"><input name="subject" value="A question" /></${Field}>`}
      <${Field} label="Message"><textarea name="body" required rows="2"></textarea></${Field}>
      <${Problem} error=${write.error} />
      <div class="actions">
        <span role="status">
          ${count > 0 && html`${count} ${count === 1 ? "message" : "messages"} received: see the <a href="#/inbox">inbox</a>`}
        </span>
        <button class="primary" aria-disabled=${write.busy}>Simulate message</button>
      </div>
    </form>
  `;
}

export default function Playground({ caller }) {
  return html`
    <div class="page">
      <h1>Playground</h1>
      <p>Mock providers stand in for the real ones. Make one fail, send a message from the inbox, and watch the message recover.</p>
      <div class="columns">
        ${["sms", "email"].map(
          (channel) => html`
            <section aria-labelledby="play-${channel}" key=${channel}>
              <h2 id="play-${channel}">${channel === "sms" ? "SMS and MMS" : "E-mail"}</h2>
              ${caller.access === "write"
                ? html`<${Behaviour} channel=${channel} /><${Contact} channel=${channel} />`
                : html`<p>Your API key is read only.</p>`}
            </section>
          `,
        )}
      </div>
    </div>
  `;
}
