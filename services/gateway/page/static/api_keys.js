// The API keys by name; their values are in the configuration of the gateway and are never shown.

import { api } from "./api.js";
import { Badge, Empty, html, Problem, useLoaded } from "./ui.js";

export default function ApiKeys({ caller }) {
  const { value, error, reload } = useLoaded((signal) => api.get("api-keys", null, signal), []);
  return html`
    <div class="page">
      <h1>API keys</h1>
      <p>Keys are configured with the settings <code>API_KEYS</code> and <code>READ_ONLY_API_KEYS</code>.</p>
      <${Problem} error=${error} retry=${reload} />
      ${value && value.items.length === 0 &&
      html`<${Empty} title="No API keys">The API is open to everyone who can reach it.</${Empty}>`}
      ${value && value.items.length > 0 &&
      html`
        <div class="table" tabindex="0" role="region" aria-label="API keys">
          <table>
            <thead><tr><th>Name</th><th>Access</th></tr></thead>
            <tbody>
              ${value.items.map(
                (key) => html`
                  <tr>
                    <td>${key.name} ${key.name === caller.name && html`<${Badge} kind="info">yours</${Badge}>`}</td>
                    <td>${key.access === "write" ? "read and write" : "read only"}</td>
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </div>
      `}
    </div>
  `;
}
