/** Client of the messaging service. */
export { Client } from "./client.js";
export type { ClientOptions, EmailFields, EventFilter, SendOptions, SmsFields } from "./client.js";
export { ProblemError } from "./errors.js";
export type { Event } from "./events.js";
export type { components, paths } from "./schema.js";
export { verifyWebhook, WebhookVerificationError } from "./webhooks.js";
