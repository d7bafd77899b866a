import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });
const { data, error } = await client.POST("/api/messages/sms", {
  body: { from: "+12016661234", to: "+18045551234", type: "sms", body: "Hello" },
});
console.log(data?.id ?? error);
const page = await client.GET("/api/conversations", { params: { query: { limit: 1 } } });
console.log(page.data?.items.length);

export async function refuseIncompleteMessages(): Promise<void> {
  // @ts-expect-error - a message needs a recipient
  await client.POST("/api/messages/sms", { body: { from: "+12016661234", type: "sms", body: "Hello" } });
}
