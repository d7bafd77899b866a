import type { components } from "./schema.js";

/** The service has refused a request. */
export class ProblemError extends Error {
  /** The status of the response. */
  readonly status: number;
  /** The kind of problem, such as `recipient_opted_out`; `http_error` if the response names none. */
  readonly code: string;
  /** The problem in words. */
  readonly detail: string;
  /** The invalid fields, if any. */
  readonly errors: components["schemas"]["Fault"][];
  /** By which the logs of the service can be searched. */
  readonly requestId: string | undefined;
  /** Seconds after which the request may be repeated, if the service names them. */
  readonly retryAfter: number | undefined;

  constructor(response: Response, problem: Partial<components["schemas"]["Problem"]>) {
    const code = problem.code ?? "http_error";
    const detail = problem.detail ?? response.statusText;
    const errors = problem.errors ?? [];
    const faults = errors.map((fault) => `; ${fault.field} ${fault.detail}`).join("");
    super(`${response.status} ${code}: ${detail}${faults}`);
    this.name = "ProblemError";
    this.status = response.status;
    this.code = code;
    this.detail = detail;
    this.errors = errors;
    this.requestId = response.headers.get("x-request-id") ?? undefined;
    const retryAfter = response.headers.get("retry-after") ?? "";
    this.retryAfter = /^\d+$/.test(retryAfter) ? Number(retryAfter) : undefined;
  }

  /** Returns the problem of a response; a proxy may have sent one that is no problem document. */
  static async of(response: Response): Promise<ProblemError> {
    const content: unknown = await response.json().catch(() => undefined);
    return new ProblemError(response, typeof content === "object" && content !== null ? content : {});
  }
}
