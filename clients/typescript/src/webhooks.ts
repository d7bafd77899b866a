import { Webhook } from "standardwebhooks";
import type { Event } from "./events.js";

/**
 * Returns the event of a webhook, and throws a WebhookVerificationError if it was not signed with the secret, or not
 * within the last five minutes. The same event may be delivered more than once; its `id` is then the same.
 *
 * @param body of the request, exactly as it was received
 * @param headers of the request
 * @param secret of the webhook endpoint, beginning with `whsec_`
 */
export function verifyWebhook(body: string, headers: Headers | Record<string, string>, secret: string): Event {
  const entries = headers instanceof Headers ? [...headers.entries()] : Object.entries(headers);
  const lower = Object.fromEntries(entries.map(([name, value]) => [name.toLowerCase(), value]));
  return new Webhook(secret).verify(body, lower) as Event;
}
