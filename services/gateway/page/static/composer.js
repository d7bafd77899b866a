// The forms that send a message in a conversation, or to any recipient.

import { api, idempotencyKey } from "./api.js";
import { sidesOf } from "./conversation.js";
import { segmentsOf } from "./segments.js";
import { Dialog, Field, html, Problem, useAction } from "./ui.js";
import { useCallback, useEffect, useRef, useState } from "./vendor/htm-preact.js";

function Counter({ text, isMms }) {
  if (isMms) return html`<span class="counter">MMS</span>`;
  const { encoding, segments, used, room } = segmentsOf(text);
  return html`<span class="counter">${used}/${room} · ${segments} ${segments === 1 ? "segment" : "segments"}<span class="encoding"> · ${encoding}</span></span>`;
}

/** Return the body of the request from the fields of the form. */
function requestOf(channel, from, to, fields) {
  const attachments = fields.attachments.split(/\s+/).filter(Boolean);
  const request = { from, to, body: fields.body };
  if (channel === "sms") request.type = attachments.length || Array.isArray(to) ? "mms" : "sms";
  if (attachments.length) request.attachments = attachments;
  if (channel === "email" && fields.subject) request.subject = fields.subject;
  if (fields.sendAt) request.send_at = new Date(fields.sendAt).toISOString();
  if (fields.isBulk) request.priority = "bulk";
  return request;
}

const NOTHING = { subject: "", body: "", attachments: "", sendAt: "", isBulk: false };

function useSending(channel, from, to, onSent) {
  const [fields, setFields] = useState(NOTHING);
  // The key changes only after a success, so a repeated press after an error cannot send a message twice.
  const key = useRef(idempotencyKey());
  useEffect(() => {
    key.current = idempotencyKey();
  }, [channel, from, String(to)]);
  const change = (name) => (event) => {
    const { type, checked, value } = event.target;
    key.current = idempotencyKey();
    setFields((previous) => ({ ...previous, [name]: type === "checkbox" ? checked : value }));
  };
  const send = useAction(
    useCallback(async () => {
      const message = await api.post(`messages/${channel}`, requestOf(channel, from, to, fields), {
        headers: { "Idempotency-Key": key.current },
      });
      key.current = idempotencyKey();
      setFields(NOTHING);
      onSent?.(message);
    }, [channel, from, String(to), fields, onSent]),
  );
  return { fields, change, send };
}

/** The fields of a message, followed by a row of buttons, to which the children are added. */
function Fields({ channel, fields, change, children }) {
  const [hasOptions, setHasOptions] = useState(false);
  return html`
    ${channel === "email" &&
    html`<input aria-label="Subject" placeholder="Subject" value=${fields.subject} onInput=${change("subject")} />`}
    <textarea
      aria-label="Message"
      placeholder=${channel === "sms" ? "Write a text message" : "Write an e-mail"}
      rows=${channel === "sms" ? 2 : 4}
      value=${fields.body}
      onInput=${change("body")}
    ></textarea>
    ${hasOptions &&
    html`
      <div class="options">
        <${Field} label="Attachments" hint="One URL per line">
          <textarea rows="2" value=${fields.attachments} onInput=${change("attachments")}></textarea>
        </${Field}>
        <${Field} label="Send later" hint="Up to seven days ahead">
          <input type="datetime-local" value=${fields.sendAt} onInput=${change("sendAt")} />
        </${Field}>
        <label class="check">
          <input type="checkbox" checked=${fields.isBulk} onChange=${change("isBulk")} /> Low priority: other messages may be sent first
        </label>
      </div>
    `}
    <div class="actions">
      <button type="button" class="quiet" aria-expanded=${hasOptions} onClick=${() => setHasOptions(!hasOptions)}>
        ${hasOptions ? "Fewer options" : "Attach or schedule"}
      </button>
      ${children}
    </div>
  `;
}

export function Composer({ conversation }) {
  const { ours, others } = sidesOf(conversation);
  const to = others.length === 1 ? others[0] : others;
  const form = useRef(null);
  const { fields, change, send } = useSending(conversation.channel, ours, to, () =>
    form.current.querySelector("textarea").focus(),
  );
  const isEmpty = !fields.body.trim() && !fields.attachments.trim();
  const submit = (event) => {
    event.preventDefault();
    if (!isEmpty && !send.busy) send.run();
  };
  const pressed = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  };
  return html`
    <form class="composer" ref=${form} aria-label="Reply" onSubmit=${submit} onKeyDown=${pressed}>
      <${Problem} error=${send.error} />
      <${Fields} channel=${conversation.channel} fields=${fields} change=${change}>
        ${conversation.channel === "sms" && html`<${Counter} text=${fields.body} isMms=${Array.isArray(to) || fields.attachments.trim()} />`}
        <button class="primary" title="Ctrl+Enter" disabled=${isEmpty} aria-disabled=${send.busy}>${fields.sendAt ? "Schedule" : "Send"}</button>
      </${Fields}>
    </form>
  `;
}

/** Return the recipient, or the list of those of a group. An e-mail has one, whose name may contain commas. */
function recipientsOf(channel, text) {
  const recipients = text.split(/[\n,;]+/).map((each) => each.trim()).filter(Boolean);
  return channel === "sms" && recipients.length > 1 ? recipients : text.trim();
}

export function NewMessage({ onClose }) {
  const [channel, setChannel] = useState("sms");
  const [from, setFrom] = useState(sessionStorage.getItem("from-sms") || "");
  const [written, setWritten] = useState("");
  const to = recipientsOf(channel, written);
  const { fields, change, send } = useSending(channel, from, to, (message) => {
    sessionStorage.setItem(`from-${channel}`, from);
    onClose();
    location.hash = `#/inbox/${message.conversation_key}`;
  });
  const choose = (event) => {
    setChannel(event.target.value);
    setFrom(sessionStorage.getItem(`from-${event.target.value}`) || "");
  };
  const submit = (event) => {
    event.preventDefault();
    if (!send.busy) send.run();
  };
  const hints = channel === "sms" ? ["+12016661234", "+18045551234"] : ["office@example.com", "ann@example.org"];
  return html`
    <${Dialog} title="New message" onClose=${onClose}>
      <form class="composer" onSubmit=${submit}>
        <${Field} label="Channel">
          <select value=${channel} onChange=${choose}>
            <option value="sms">SMS or MMS</option>
            <option value="email">E-mail</option>
          </select>
        </${Field}>
        <${Field} label="From"><input required autofocus=${!from} value=${from} placeholder=${hints[0]} onInput=${(event) => setFrom(event.target.value)} /></${Field}>
        <${Field} label="To" hint=${channel === "sms" && "Separate several numbers with commas to send a group MMS"}>
          <input required autofocus=${Boolean(from)} value=${written} placeholder=${hints[1]} onInput=${(event) => setWritten(event.target.value)} />
        </${Field}>
        <${Problem} error=${send.error} />
        <${Fields} channel=${channel} fields=${fields} change=${change}>
          ${channel === "sms" && html`<${Counter} text=${fields.body} isMms=${Array.isArray(to) || fields.attachments.trim()} />`}
          <button class="primary" aria-disabled=${send.busy}>${fields.sendAt ? "Schedule" : "Send"}</button>
        </${Fields}>
      </form>
    </${Dialog}>
  `;
}
