// The frame of the page: navigation, the API key, and the view that the address names.

import { api, apiKey, whenUnauthorized } from "./api.js";
import { connect, disconnect, onConnection, onEvent } from "./events.js";
import { Inbox, requestConversations } from "./inbox.js";
import { html, Problem } from "./ui.js";
import { render, useEffect, useState } from "./vendor/htm-preact.js";

const ICON = new URL("icon.svg", import.meta.url).href;

const VIEWS = [
  { path: "inbox", title: "Inbox", view: Inbox },
  { path: "operations", title: "Operations", load: () => import("./operations.js") },
  { path: "dead-letters", title: "Dead letters", load: () => import("./dead_letters.js") },
  { path: "suppressions", title: "Suppressions", load: () => import("./suppressions.js") },
  { path: "webhooks", title: "Webhooks", load: () => import("./webhooks.js") },
  { path: "api-keys", title: "API keys", load: () => import("./api_keys.js") },
  { path: "playground", title: "Playground", load: () => import("./playground.js"), needs: "playground" },
];

function useRoute() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

function KeyForm({ error, onKey }) {
  const submit = (event) => {
    event.preventDefault();
    const key = new FormData(event.target).get("key").trim();
    if (key) onKey(key);
  };
  return html`
    <main class="sign-in">
      <h1>Messaging service</h1>
      <form onSubmit=${submit}>
        <label class="field">
          <span>API key</span>
          <input name="key" type="password" autocomplete="off" autofocus required />
          <small>The key is kept until you close this tab.</small>
        </label>
        <${Problem} error=${error} />
        <button class="primary">Continue</button>
      </form>
    </main>
  `;
}

const CONNECTION = { connecting: "Connecting", live: "Live", lost: "Connection lost, trying again" };

function Connection() {
  const [state, setState] = useState("connecting");
  useEffect(() => onConnection(setState), []);
  return html`<p class="connection ${state}" role="status"><span aria-hidden="true"></span>${CONNECTION[state]}</p>`;
}

const ANNOUNCE_AFTER = 1500; // milliseconds, during which further messages are counted

/** Announce received messages to screen readers: the sender of a single one, or the number of several. */
function Announcements() {
  const [text, setText] = useState("");
  useEffect(() => {
    let senders = [];
    let timer = null;
    const announce = () => {
      setText(senders.length === 1 ? `New message from ${senders[0]}` : `${senders.length} new messages`);
      senders = [];
      timer = null;
    };
    const end = onEvent((event) => {
      if (event.type !== "message.received") return;
      senders.push(event.data.from_name || event.data.from);
      timer ??= setTimeout(announce, ANNOUNCE_AFTER);
    });
    return () => (clearTimeout(timer), end());
  }, []);
  return html`<p class="unseen" aria-live="polite">${text}</p>`;
}

function View({ entry, parameters, caller }) {
  const [loaded, setLoaded] = useState({ path: null, view: null });
  useEffect(() => {
    if (!entry.view) entry.load().then((module) => setLoaded({ path: entry.path, view: module.default }));
  }, [entry]);
  const Shown = entry.view || (loaded.path === entry.path && loaded.view);
  return Shown ? html`<${Shown} parameters=${parameters} caller=${caller} />` : html`<p class="loading">Loading</p>`;
}

function Shell({ caller, onSignOut }) {
  const [path, ...parameters] = useRoute();
  const views = VIEWS.filter((view) => !view.needs || caller[view.needs]);
  const entry = views.find((view) => view.path === path) || views[0];
  useEffect(() => {
    document.title = `${entry.title} · Messaging service`;
    document.querySelector(".bar [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [entry]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    }}>Skip to content</a>
    <header class="bar">
      <span class="brand"><img src=${ICON} alt="" width="24" height="24" />Messaging</span>
      <nav aria-label="Views">
        ${views.map(
          (view) => html`
            <a href="#/${view.path}" aria-current=${view.path === entry.path ? "page" : undefined}>${view.title}</a>
          `,
        )}
        <a href="docs">API reference</a>
      </nav>
      <${Connection} />
      <${Announcements} />
      ${apiKey.get() && html`<button type="button" class="quiet" onClick=${onSignOut}>Sign out ${caller.name}</button>`}
    </header>
    <main id="main" tabindex="-1" class="view-${entry.path}">
      <${View} entry=${entry} parameters=${parameters} caller=${caller} />
    </main>
  `;
}

function App() {
  const [caller, setCaller] = useState(null);
  const [error, setError] = useState(null);
  const [needsKey, setNeedsKey] = useState(false);

  const start = async () => {
    try {
      setCaller(await api.get("api-keys/current"));
      setError(null);
      setNeedsKey(false);
      connect();
    } catch (failure) {
      if (failure.status !== 401) setError(failure);
    }
  };
  useEffect(() => {
    whenUnauthorized((failure) => {
      disconnect();
      setCaller(null);
      setNeedsKey(true);
      setError((previous) => (apiKey.get() ? failure : previous));
      apiKey.forget();
    });
    start();
  }, []);

  if (needsKey) {
    return html`<${KeyForm} error=${error} onKey=${(key) => {
      apiKey.set(key);
      start();
    }} />`;
  }
  if (error) return html`<main class="sign-in"><${Problem} error=${error} retry=${start} /></main>`;
  if (!caller) return null;
  return html`<${Shell} caller=${caller} onSignOut=${() => {
    apiKey.forget();
    location.reload();
  }} />`;
}

/** When the element with the focus is removed, focus its nearest ancestor that is left and can have the focus. */
function keepFocus() {
  let path = [];
  addEventListener("focusin", (event) => {
    path = event.composedPath();
  });
  new MutationObserver(() => {
    if (!path.length || path[0].isConnected || document.activeElement !== document.body) return;
    path.find((node) => node.isConnected && node.matches?.("[tabindex]"))?.focus({ preventScroll: true });
  }).observe(document.body, { childList: true, subtree: true });
}

keepFocus();
// The list is usually shown first, so it is requested without waiting for the caller's name and rights.
if (/^(#\/?(inbox.*)?)?$/.test(location.hash)) requestConversations();
render(html`<${App} />`, document.getElementById("app"));
