// Requests to the public API, with the API key of the session.

const STORED_KEY = "api-key";

// The page may be served below a path prefix, so URLs are relative to it.
export const BASE = new URL("api/", document.baseURI).href;

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server responded with ${status}`);
    this.status = status;
    this.code = problem.code;
    this.errors = problem.errors || [];
  }
}

export const apiKey = {
  get: () => sessionStorage.getItem(STORED_KEY) || "",
  set: (key) => sessionStorage.setItem(STORED_KEY, key),
  forget: () => sessionStorage.removeItem(STORED_KEY),
};

let onUnauthorized = () => {};

/** Call a function whenever the server refuses the API key. */
export function whenUnauthorized(callback) {
  onUnauthorized = callback;
}

export function authorization() {
  const key = apiKey.get();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}

/** Send a request and return the response; throw an ApiError unless its status is 2xx. */
export async function request(method, path, { query, body, headers, signal } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  const response = await fetch(url, {
    method,
    signal,
    headers: {
      Accept: "application/json",
      ...authorization(),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response;
  const error = new ApiError(response.status, await problemOf(response));
  if (response.status === 401) onUnauthorized(error);
  throw error;
}

async function json(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const api = {
  get: (path, query, signal) => json("GET", path, { query, signal }),
  post: (path, body, options) => json("POST", path, { body, ...options }),
  put: (path, body, options) => json("PUT", path, { body, ...options }),
  patch: (path, body, options) => json("PATCH", path, { body, ...options }),
  delete: (path, options) => json("DELETE", path, options),
};

/** Return a random key for the header `Idempotency-Key`; `crypto.randomUUID` exists only on secure origins. */
export function idempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
