// Small parts that several views use.

import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

export { html };

const STATUS_KINDS = {
  received: "good",
  delivered: "good",
  sent: "info",
  accepted: "info",
  scheduled: "info",
  retrying: "warn",
  canceled: "plain",
  expired: "bad",
  undelivered: "bad",
  failed: "bad",
};

export function StatusBadge({ status }) {
  return html`<span class="badge ${STATUS_KINDS[status] || "plain"}">${status}</span>`;
}

export function Badge({ kind = "plain", children }) {
  return html`<span class="badge ${kind}">${children}</span>`;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const DAY_TIME = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const SECONDS = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const MOMENT = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", ...SECONDS });
const FULL_DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Show a time: in a list without the time of day unless it is today, in a thread with it, or in full. */
export function Time({ at, full = false, inThread = false }) {
  if (!at) return null;
  const date = new Date(at);
  const now = new Date();
  const isToday = date.toDateString() === now.toDateString();
  const isThisYear = date.getFullYear() === now.getFullYear();
  const [thisYear, earlier] = full ? [MOMENT, FULL] : inThread ? [DAY_TIME, FULL] : [DAY, FULL_DAY];
  const format = isToday && !full ? TIME : isThisYear ? thisYear : earlier;
  return html`<time datetime=${at} title=${FULL.format(date)}>${format.format(date)}</time>`;
}

export function Problem({ error, retry }) {
  if (!error) return null;
  const faults = error.errors || [];
  return html`
    <div class="problem" role="alert">
      <p>${error.message}</p>
      ${faults.length > 0 &&
      html`<ul>${faults.map((fault) => html`<li><code>${fault.field}</code> ${fault.detail}</li>`)}</ul>`}
      ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
    </div>
  `;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2><p>${children}</p></div>`;
}

/**
 * Run an asynchronous action, one at a time, with its error and whether it is in progress.
 *
 * A button that is disabled loses the focus, so the buttons of actions in progress are only marked as disabled.
 */
export function useAction(action) {
  const [state, setState] = useState({ busy: false, error: null });
  const isBusy = useRef(false);
  const run = useCallback(
    async (...given) => {
      if (isBusy.current) return undefined;
      isBusy.current = true;
      setState({ busy: true, error: null });
      try {
        const result = await action(...given);
        setState({ busy: false, error: null });
        return result;
      } catch (error) {
        setState({ busy: false, error });
        return undefined;
      } finally {
        isBusy.current = false;
      }
    },
    [action],
  );
  return { ...state, run };
}

/** Load a value, reload it whenever the dependencies change, and return it with `reload`. */
export function useLoaded(load, dependencies) {
  const [state, setState] = useState({ value: null, error: null, loading: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    setState((previous) => ({ ...previous, loading: true }));
    load(controller.signal).then(
      (value) => !controller.signal.aborted && setState({ value, error: null, loading: false }),
      (error) =>
        !controller.signal.aborted && setState((previous) => ({ value: previous.value, error, loading: false })),
    );
    return () => controller.abort();
  }, [...dependencies, round]);
  return { ...state, reload: useCallback(() => setRound((previous) => previous + 1), []) };
}

/** Load the pages of a list one after another. `reload` loads as many of them again as are shown. */
export function usePages(fetchPage, dependencies) {
  const [state, setState] = useState({ items: [], next: null, error: null, loading: true });
  const [round, setRound] = useState(0);
  // `wanted` is the number of items to load at least, and `stale` whether they have changed in the meantime.
  const list = useRef({ number: 0, wanted: 0, loading: false, stale: false }).current;
  const load = async (items, cursor) => {
    const number = ++list.number;
    Object.assign(list, { loading: true, stale: false });
    setState((previous) => ({ ...previous, loading: true, error: null }));
    let next = cursor;
    let error = null;
    try {
      do {
        const page = await fetchPage(next);
        if (number !== list.number) return;
        items = [...items, ...page.items];
        next = page.next_cursor;
      } while (next && items.length < list.wanted);
    } catch (failure) {
      error = failure;
    }
    if (number !== list.number) return;
    list.loading = false;
    setState((previous) => (error ? { ...previous, error, loading: false } : { items, next, error, loading: false }));
    if (list.stale) setRound((previous) => previous + 1);
  };
  useEffect(() => {
    list.wanted = 0;
  }, dependencies);
  useEffect(() => {
    load([], undefined);
    return () => {
      list.number += 1;
    };
  }, [...dependencies, round]);
  const more = () => {
    if (!state.next) return;
    list.wanted = state.items.length + 1;
    if (!list.loading) load(state.items, state.next);
  };
  const reload = useCallback(() => {
    if (list.loading) list.stale = true;
    else setRound((previous) => previous + 1);
  }, []);
  return { ...state, more, reload };
}

/** Call a function at intervals while the page is visible. */
export function useInterval(callback, milliseconds) {
  const latest = useRef(callback);
  latest.current = callback;
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && latest.current(), milliseconds);
    return () => clearInterval(timer);
  }, [milliseconds]);
}

/** A modal dialog that Escape closes. The browser keeps the focus inside it, and returns it when it is closed. */
export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  const latest = useRef(onClose);
  latest.current = onClose;
  useLayoutEffect(() => {
    const dialog = element.current;
    const closed = () => latest.current();
    dialog.addEventListener("close", closed);
    dialog.showModal();
    return () => {
      // The event follows later, when another dialog may have taken the place of this one.
      dialog.removeEventListener("close", closed);
      dialog.close();
    };
  }, []);
  return html`
    <dialog ref=${element} aria-label=${title}>
      <header>
        <h2>${title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick=${onClose}>✕</button>
      </header>
      ${children}
    </dialog>
  `;
}

export function Field({ label, hint, children }) {
  return html`<label class="field"><span>${label}</span>${children}${hint && html`<small>${hint}</small>`}</label>`;
}

export function bytes(size) {
  if (size === null || size === undefined) return "";
  if (size < 1024) return `${size} B`;
  return size < 1024 * 1024 ? `${(size / 1024).toFixed(1)} KiB` : `${(size / 1024 / 1024).toFixed(1)} MiB`;
}
