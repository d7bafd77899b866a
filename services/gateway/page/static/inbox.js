// The conversations, newest first, and the thread of the selected one.

import { api } from "./api.js";
import { Composer, NewMessage } from "./composer.js";
import { sidesOf } from "./conversation.js";
import { onChange } from "./events.js";
import { Thread } from "./thread.js";
import { Empty, html, Problem, StatusBadge, Time } from "./ui.js";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

const ROW = 72; // pixels, as in the style sheet
const PAGE = 100;
const RETRY = 2000; // milliseconds until the next page of the list is requested again

let firstPage = null;

/** Request the first page of the list before the list is rendered. */
export function requestConversations() {
  firstPage = api.get("conversations", { limit: PAGE });
  // It may fail before the caller has entered a key; the list then requests the page again.
  firstPage.catch(() => {
    firstPage = null;
  });
}

/** Whether the address of the page names a conversation, by its id or its key. */
function isNamed(selected, id, key) {
  return selected !== undefined && (selected === String(id) || selected === key);
}

function preview(message) {
  if (!message) return "";
  const body = message.type === "email" ? message.body.replace(/<[^>]*>/g, " ") : message.body;
  const text = message.subject || message.text || body;
  return text.trim().slice(0, 120) || (message.attachments.length ? "Attachment" : "");
}

/** Read the conversations page by page, and keep them up to date with the events. */
function useConversations(filters) {
  const [state, setState] = useState({ items: [], next: null, error: null, loading: true });
  const { channel, participant } = filters;
  const generation = useRef(0);

  const load = useCallback(
    async (cursor) => {
      const number = cursor ? generation.current : ++generation.current;
      setState((previous) => ({ ...previous, loading: true, error: null }));
      const requested = channel || participant || cursor ? null : firstPage;
      firstPage = null;
      try {
        const page = await (requested ?? api.get("conversations", { channel, participant, limit: PAGE, cursor }));
        if (number !== generation.current) return;
        setState((previous) => {
          const known = new Set(cursor ? previous.items.map((item) => item.id) : []);
          const fresh = page.items.filter((item) => !known.has(item.id));
          return {
            items: cursor ? [...previous.items, ...fresh] : fresh,
            next: page.next_cursor,
            error: null,
            loading: false,
          };
        });
      } catch (error) {
        if (number !== generation.current) return;
        setState((previous) => ({ ...previous, items: error.status === 422 ? [] : previous.items, error, loading: false }));
        if (cursor) setTimeout(() => number === generation.current && load(cursor), RETRY);
      }
    },
    [channel, participant],
  );

  /** Load the newest conversations, and put them before those that are already shown. */
  const refresh = useCallback(async () => {
    const number = generation.current;
    const page = await api.get("conversations", { channel, participant, limit: PAGE });
    if (number !== generation.current) return;
    setState((previous) => {
      const fresh = new Set(page.items.map((item) => item.id));
      const rest = previous.items.filter((item) => !fresh.has(item.id));
      return { ...previous, items: [...page.items, ...rest], next: previous.items.length ? previous.next : page.next_cursor };
    });
  }, [channel, participant]);

  useEffect(() => {
    load();
  }, [load]);

  useEffect(() => onChange("message.", () => refresh().catch(() => {})), [refresh]);

  return { ...state, more: () => !state.loading && state.next && load(state.next), reload: () => load() };
}

function Row({ row, top, isReachable, onFocus }) {
  return html`
    <li style=${{ top: `${top}px` }}>
      <a href="#/inbox/${row.path}" aria-current=${row.isSelected ? "true" : undefined} tabindex=${isReachable ? 0 : -1} onFocus=${onFocus}>
        <span class="who"><strong>${row.title}</strong><${Time} at=${row.at} /></span>
        <span class="what">
          ${row.channel && html`<span class="channel">${row.channel === "sms" ? "SMS" : "E-mail"}</span>`}
          <span class="preview">${row.text}</span>
          ${row.status && html`<${StatusBadge} status=${row.status} />`}
        </span>
      </a>
    </li>
  `;
}

/** Move the focus to the row above or below. A few rows beyond the view are always rendered. */
function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const links = [...event.currentTarget.querySelectorAll("a")];
  const link = links[links.indexOf(document.activeElement) + step];
  if (!link) return;
  event.preventDefault();
  link.focus();
}

/**
 * A list that renders only the rows in view, so that ten thousand conversations scroll as smoothly as ten.
 *
 * The list is a single tab stop: the row that had the focus last, or the first one in view. Arrow keys move the focus.
 */
function List({ label, items, rowOf, onEnd }) {
  const element = useRef(null);
  const [view, setView] = useState({ top: 0, height: 800 });
  const [focused, setFocused] = useState(null);
  const measure = () => {
    const { scrollTop, clientHeight } = element.current;
    setView((previous) =>
      previous.top === scrollTop && previous.height === clientHeight
        ? previous
        : { top: scrollTop, height: clientHeight },
    );
    if (scrollTop + clientHeight > items.length * ROW - 10 * ROW) onEnd?.();
  };
  useLayoutEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [items.length]);
  const first = Math.max(0, Math.floor(view.top / ROW) - 8);
  const last = Math.min(items.length, Math.ceil((view.top + view.height) / ROW) + 8);
  const shown = items.slice(first, last);
  const inView = items[Math.min(Math.ceil(view.top / ROW), items.length - 1)];
  const reachable = shown.some((item) => item.id === focused) ? focused : inView?.id;
  return html`
    <div class="rows" ref=${element} onScroll=${measure} onKeyDown=${moveFocus} role="group" aria-label=${label}>
      <ol style=${{ height: `${items.length * ROW}px` }}>
        ${shown.map(
          (item, index) => html`
            <${Row}
              key=${item.id}
              row=${rowOf(item)}
              top=${(first + index) * ROW}
              isReachable=${item.id === reachable}
              onFocus=${() => setFocused(item.id)}
            />
          `,
        )}
      </ol>
    </div>
  `;
}

function rowOfConversation(conversation, selected) {
  const last = conversation.last_message;
  return {
    path: conversation.id,
    isSelected: isNamed(selected, conversation.id, conversation.key),
    title: (last?.direction === "inbound" && last.from_name) || sidesOf(conversation).others.join(", "),
    at: conversation.last_message_at,
    channel: conversation.channel,
    text: preview(last),
    status: last?.direction === "outbound" && last.status,
  };
}

function rowOfMessage(message, selected) {
  return {
    path: message.conversation_id ?? message.conversation_key,
    isSelected: isNamed(selected, message.conversation_id, message.conversation_key),
    title: message.direction === "inbound" ? message.from : message.recipients.join(", "),
    at: message.created_at,
    text: preview(message),
    status: message.status,
  };
}

function Filters({ filters, onSelect }) {
  const [text, setText] = useState(filters.participant);
  useEffect(() => {
    const address = text.trim().replace(/^mailto:/i, "");
    const timer = setTimeout(() => address !== filters.participant && onSelect({ participant: address }), 300);
    return () => clearTimeout(timer);
  }, [text]);
  return html`
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <input
        type="search"
        aria-label="Search by phone number or e-mail address"
        placeholder="Full phone number or e-mail address"
        value=${text}
        onInput=${(event) => setText(event.target.value)}
      />
      <select aria-label="Channel" value=${filters.channel} onChange=${(event) => onSelect({ channel: event.target.value })}>
        <option value="">All channels</option>
        <option value="sms">SMS and MMS</option>
        <option value="email">E-mail</option>
      </select>
      <select aria-label="Status" value=${filters.status} onChange=${(event) => onSelect({ status: event.target.value })}>
        <option value="">Any status</option>
        ${["scheduled", "retrying", "sent", "delivered", "undelivered", "failed", "expired", "canceled", "received"].map(
          (status) => html`<option value=${status}>${status}</option>`,
        )}
      </select>
    </form>
  `;
}

/** The error of a list; an address that is still being typed is not shown as one. */
function SearchProblem({ error, retry }) {
  if (error?.errors?.some((fault) => ["participant", "address"].includes(fault.field))) {
    return html`<${Empty} title="No match yet">Enter the full phone number or e-mail address.</${Empty}>`;
  }
  return html`<${Problem} error=${error} retry=${retry} />`;
}

function SelectedConversation({ id, caller }) {
  const [conversation, setConversation] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    setConversation(null);
    setError(null);
    // The conversation of a message that was just accepted is stored a moment later.
    const load = (attempts) =>
      api.get(`conversations/${encodeURIComponent(id)}`).then(setConversation, (failure) => {
        if (failure.status !== 404 || attempts === 0) setError(failure);
        else timer = setTimeout(load, 300, attempts - 1);
      });
    let timer = null;
    load(10);
    return () => clearTimeout(timer);
  }, [id]);
  const element = useRef(null);
  // On narrow screens, the list is hidden, and with it the row that had the focus.
  useEffect(() => {
    if (conversation && document.activeElement === document.body) element.current.focus();
  }, [conversation]);
  if (error) return html`<section class="thread"><${Problem} error=${error} /></section>`;
  if (!conversation) return html`<section class="thread" aria-busy="true"></section>`;
  const { ours, others } = sidesOf(conversation);
  return html`
    <section class="thread" ref=${element} tabindex="-1" aria-label="Conversation">
      <header>
        <a class="back" href="#/inbox" aria-label="Back to the conversations">←</a>
        <h1>${others.join(", ")}</h1>
        <p>with ${ours || "us"} by ${conversation.channel === "sms" ? "SMS" : "e-mail"}</p>
      </header>
      <${Thread} key=${conversation.id} conversation=${conversation} caller=${caller} />
      ${caller.access === "write" && html`<${Composer} key=${`c${conversation.id}`} conversation=${conversation} />`}
    </section>
  `;
}

/** The messages of one status, newest first, each with a link to its conversation. */
function MessagesByStatus({ filters, selected }) {
  const [state, setState] = useState({ items: [], error: null, loading: true });
  const { status, channel, participant } = filters;
  const load = useCallback(() => {
    api
      .get("messages", { status, channel, address: participant, limit: PAGE })
      .then((page) => setState({ items: page.items, error: null, loading: false }))
      .catch((error) => setState({ items: [], error, loading: false }));
  }, [status, channel, participant]);
  useEffect(() => {
    load();
    return onChange("message.", load);
  }, [load]);
  if (state.error) return html`<${SearchProblem} error=${state.error} retry=${load} />`;
  if (!state.loading && state.items.length === 0) {
    return html`<${Empty} title="No messages">There are no messages with this status.</${Empty}>`;
  }
  return html`<${List} label="Messages" items=${state.items} rowOf=${(message) => rowOfMessage(message, selected)} />`;
}

export function Inbox({ parameters, caller }) {
  const [filters, setFilters] = useState({ participant: "", channel: "", status: "" });
  const [isWriting, setIsWriting] = useState(false);
  const { items, error, loading, more, reload } = useConversations(filters);
  const [selected] = parameters;
  const wasSelected = useRef(selected);
  useLayoutEffect(() => {
    // The focus was on the link back to the list, which is gone with the conversation.
    const isLost = wasSelected.current && !selected && document.activeElement === document.body;
    if (isLost) document.querySelector('.rows a[tabindex="0"]')?.focus();
    wasSelected.current = selected;
  }, [selected]);
  return html`
    <div class="inbox ${selected ? "has-selection" : ""}">
      <section class="list" aria-label="Inbox">
        <header>
          <h1>Inbox</h1>
          ${caller.access === "write" &&
          html`<button type="button" class="primary" onClick=${() => setIsWriting(true)}>New message</button>`}
        </header>
        <${Filters} filters=${filters} onSelect=${(changes) => setFilters((previous) => ({ ...previous, ...changes }))} />
        ${filters.status
          ? html`<${MessagesByStatus} filters=${filters} selected=${selected} />`
          : html`
              <${SearchProblem} error=${error} retry=${reload} />
              ${!loading && !error && items.length === 0 &&
              html`<${Empty} title="No conversations">
                ${filters.participant
                  ? "No conversation has this address. Enter the whole phone number or e-mail address."
                  : filters.channel
                  ? "There are no conversations of this channel."
                  : "Send a message, or simulate an inbound one in the playground."}
              </${Empty}>`}
              <${List} label="Conversations" items=${items} rowOf=${(item) => rowOfConversation(item, selected)} onEnd=${more} />
            `}
      </section>
      ${selected
        ? html`<${SelectedConversation} key=${selected} id=${selected} caller=${caller} />`
        : html`<section class="thread placeholder"><p>Select a conversation.</p></section>`}
      ${isWriting && html`<${NewMessage} onClose=${() => setIsWriting(false)} />`}
    </div>
  `;
}
