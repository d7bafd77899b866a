// The numbers of received, sent, waiting and failed messages, and the state of consumers and providers.

import { api } from "./api.js";
import { Badge, Empty, html, Problem, Time, useInterval, useLoaded } from "./ui.js";
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";

const PLOTS = [
  { title: "Received", kinds: ["received"] },
  { title: "Accepted", kinds: ["accepted"] },
  { title: "Scheduled", kinds: ["scheduled"] },
  { title: "Sent", kinds: ["sent"] },
  { title: "Delivered", kinds: ["delivered"] },
  { title: "Failed", kinds: ["failed", "undelivered", "expired"] },
];
const TIME = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const COLORS = 4; // of the variables --plot-1 and so on

let charting = null;

/** Load uPlot, which is a classic script, when a plot is needed. */
function loadCharts() {
  charting ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("vendor/uplot.css", import.meta.url) });
    const script = Object.assign(document.createElement("script"), { src: new URL("vendor/uplot.js", import.meta.url) });
    script.onload = () => resolve(window.uPlot);
    script.onerror = reject;
    document.head.append(style, script);
  });
  return charting;
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Whether the page is dark now; plots have to be drawn again when that changes. */
function useIsDark() {
  const [isDark, setIsDark] = useState(DARK.matches);
  useEffect(() => {
    const changed = () => setIsDark(DARK.matches);
    DARK.addEventListener("change", changed);
    return () => DARK.removeEventListener("change", changed);
  }, []);
  return isDark;
}

function Plot({ title, minutes, series }) {
  const element = useRef(null);
  const isDark = useIsDark();
  const total = series.reduce((sum, one) => sum + one.counts.reduce((a, b) => a + b, 0), 0);
  const latest = series.reduce((sum, one) => sum + (one.counts.at(-2) || 0), 0) / 60;
  const data = JSON.stringify([minutes, series]);
  useEffect(() => {
    let chart = null;
    let isGone = false;
    const observer = new ResizeObserver(() => chart?.setSize({ width: element.current.clientWidth, height: 120 }));
    loadCharts().then((UPlot) => {
      if (isGone) return;
      const style = getComputedStyle(document.documentElement);
      const axis = { stroke: style.getPropertyValue("--muted"), grid: { stroke: style.getPropertyValue("--line"), width: 1 } };
      const options = {
        width: element.current.clientWidth,
        height: 120,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { y: { range: (_, __, most) => [0, Math.max(most, 0.1)] } },
        padding: [8, 32, 0, 0],
        axes: [{ ...axis, size: 30, values: (_, seconds) => seconds.map((at) => TIME.format(at * 1000)) }, { ...axis, size: 44 }],
        series: [
          {},
          ...series.map((one) => ({
            label: one.label,
            stroke: style.getPropertyValue(`--plot-${one.color}`),
            width: 1.5,
            points: { show: false },
          })),
        ],
      };
      const rows = series.map((one) => one.counts.map((count) => count / 60));
      chart = new UPlot(options, [minutes.map((minute) => Date.parse(minute) / 1000), ...rows], element.current);
      observer.observe(element.current);
    });
    return () => {
      isGone = true;
      observer.disconnect();
      chart?.destroy();
    };
  }, [data, isDark]);
  return html`
    <figure class="plot">
      <figcaption><strong>${title}</strong> <span>${latest.toFixed(latest < 10 ? 1 : 0)}/s · ${total} in the last hour</span></figcaption>
      <div ref=${element} role="img" aria-label="${title}: ${total} in the last hour"></div>
      <ul class="legend">
        ${series.map((one) => html`<li class="plot-${one.color}">${one.label}</li>`)}
      </ul>
    </figure>
  `;
}

function labelOf({ channel, provider }) {
  return [channel, provider].filter(Boolean).join(" · ");
}

/** Number the labels with a provider, or those without one, in order. */
function colorOf(traffic, label) {
  const labels = [...new Set(traffic.series.map(labelOf))].filter((each) => each.includes(" · ") === label.includes(" · "));
  return (labels.sort().indexOf(label) % COLORS) + 1;
}

/** Add up the series of some kinds by channel and provider. A label has the same color in every plot. */
function seriesOf(traffic, kinds) {
  const sums = new Map();
  for (const one of traffic.series.filter((each) => kinds.includes(each.kind))) {
    const label = labelOf(one);
    const counts = sums.get(label) || traffic.minutes.map(() => 0);
    sums.set(label, counts.map((count, index) => count + one.counts[index]));
  }
  return [...sums].sort().map(([label, counts]) => ({ label, counts, color: colorOf(traffic, label) }));
}

function Traffic() {
  const { value, error, reload } = useLoaded((signal) => api.get("operations/traffic", null, signal), []);
  useInterval(reload, 10_000);
  if (error && !value) return html`<${Problem} error=${error} retry=${reload} />`;
  if (!value) return html`<p class="loading">Loading</p>`;
  return html`
    <div class="plots">
      ${PLOTS.map(({ title, kinds }) => html`
        <${Plot} key=${title} title=${title} minutes=${value.minutes} series=${seriesOf(value, kinds)} />
      `)}
    </div>
  `;
}

const PROVIDER_STATES = {
  healthy: ["good", "healthy"],
  open: ["bad", "circuit breaker open"],
  paused: ["warn", "paused"],
};

function Providers({ providers }) {
  if (providers.length === 0) return html`<${Empty} title="No sender is running">Messages wait until a sender is started.</${Empty}>`;
  return html`
    <div class="table" tabindex="0" role="region" aria-label="Providers">
      <table>
        <thead><tr><th>Provider</th><th>Channel</th><th>State</th><th>In progress</th><th>Rate limit</th><th>Senders</th></tr></thead>
        <tbody>
          ${providers.map((provider) => {
            const [kind, text] = PROVIDER_STATES[provider.state];
            return html`
              <tr>
                <td>${provider.name}</td>
                <td>${provider.channel}</td>
                <td>
                  <${Badge} kind=${kind}>${text}</${Badge}>
                  ${provider.until && html` until <${Time} at=${provider.until} full />`}
                  ${provider.paused_senders > 0 &&
                  html` <${Badge} kind="warn">${provider.paused_senders} sending ${provider.paused_senders === 1 ? "address" : "addresses"} paused</${Badge}>`}
                </td>
                <td class="number">${provider.in_progress} of ${provider.concurrency}</td>
                <td class="number">${provider.rate ? `${provider.rate}/s` : "none"}</td>
                <td class="number">${provider.processes}</td>
              </tr>
            `;
          })}
        </tbody>
      </table>
    </div>
  `;
}

function SendingLimits({ limits }) {
  return html`
    <div class="table" tabindex="0" role="region" aria-label="Limits of sending addresses">
      <table>
        <thead><tr><th>Limit</th><th>Sending addresses</th><th>Segments or e-mails per second</th><th>Per day</th></tr></thead>
        <tbody>
          ${limits.map(
            (limit) => html`
              <tr>
                <td>${limit.name}</td>
                <td>${limit.senders.join(", ")}</td>
                <td class="number">${limit.rate ?? "no limit"}</td>
                <td class="number">${limit.per_day?.toLocaleString() ?? "no limit"}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

/** Add up the shards of a channel and priority, of which there are many. */
function combineShards(consumers) {
  const rows = new Map();
  for (const { stream, name, pending, ack_pending } of consumers) {
    const title = name.replace(/-\d\d-of-\d\d$/, "");
    const row = rows.get(title) || { stream, name: title, shards: 0, missing: false, pending: 0, ack_pending: 0 };
    rows.set(title, {
      ...row,
      shards: row.shards + 1,
      missing: row.missing || pending === null,
      pending: row.pending + (pending || 0),
      ack_pending: row.ack_pending + (ack_pending || 0),
    });
  }
  return [...rows.values()];
}

function Consumers({ consumers }) {
  return html`
    <div class="table" tabindex="0" role="region" aria-label="Consumers">
      <table>
        <thead><tr><th>Consumer</th><th>Stream</th><th>Waiting</th><th>In progress</th></tr></thead>
        <tbody>
          ${combineShards(consumers).map(
            (consumer) => html`
              <tr>
                <td>${consumer.name}${consumer.shards > 1 && html` <span class="muted">${consumer.shards} shards</span>`}</td>
                <td>${consumer.stream}</td>
                <td class="number">${consumer.pending} ${consumer.missing && html`<${Badge} kind="bad">missing</${Badge}>`}</td>
                <td class="number">${consumer.ack_pending}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

export default function Operations() {
  const { value, error, reload } = useLoaded((signal) => api.get("operations", null, signal), []);
  useInterval(reload, 3_000);
  return html`
    <div class="page">
      <h1>Operations</h1>
      <${Traffic} />
      <${Problem} error=${error} retry=${reload} />
      ${value &&
      html`
        <h2>Providers</h2>
        <${Providers} providers=${value.providers} />
        ${value.sending_limits.length > 0 &&
        html`
          <h2>Limits of sending addresses</h2>
          <${SendingLimits} limits=${value.sending_limits} />
        `}
        <h2>Backlog</h2>
        <${Consumers} consumers=${value.consumers} />
      `}
    </div>
  `;
}
