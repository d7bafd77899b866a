import { ProblemError } from "./errors.js";

const TEMPORARY = new Set([429, 502, 503, 504]);
const FIRST_DELAY = 0.5;
const LONGEST_DELAY = 30;

/** Returns whether the same request may succeed later. */
export function isTemporary(error: unknown): boolean {
  return error instanceof ProblemError ? TEMPORARY.has(error.status) : !(error instanceof SyntaxError);
}

/** Waits after a failure: as long as the service asks for, or longer each time. */
export async function waitAfter(error: unknown, failures: number, signal?: AbortSignal): Promise<void> {
  const asked = error instanceof ProblemError ? error.retryAfter : undefined;
  const random = Math.min(FIRST_DELAY * 2 ** (failures - 1), LONGEST_DELAY) * (0.5 + Math.random() / 2);
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, (asked ?? random) * 1000);
    signal?.addEventListener("abort", done);
  });
  signal?.throwIfAborted();
}
