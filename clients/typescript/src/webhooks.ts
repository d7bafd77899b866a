import * as standardWebhooks from "standardwebhooks";
import type { Event } from "./events.js";

/** A webhook was not signed with the secret, or not within the last five minutes. */
export class WebhookVerificationError extends Error {
  override readonly name = "WebhookVerificationError";
}

/**
 * Returns the event of a webhook, and throws a WebhookVerificationError if it was not signed with the secret, or not
 * within the last five minutes. The same event may be delivered more than once; its `id` is then the same.
 *
 * @param body of the request, exactly as it was received
 * @param headers of the request
 * @param secret of the webhook endpoint, beginning with `whsec_`
 */
export function verifyWebhook(
  body: string,
  headers: Headers | Record<string, string | string[] | undefined>,
  secret: string,
): Event {
  const entries = headers instanceof Headers ? [...headers.entries()] : Object.entries(headers);
  const lower = Object.fromEntries(entries.map(([name, value]) => [name.toLowerCase(), String(value ?? "")]));
  const webhook = new standardWebhooks.Webhook(secret);
  try {
    return webhook.verify(body, lower) as Event;
  } catch (error) {
    // Its own class would need the types of Node, which not every application has.
    if (!(error instanceof standardWebhooks.WebhookVerificationError)) throw error;
    throw new WebhookVerificationError(error.message);
  }
}
