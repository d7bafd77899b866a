import { client } from "./hey-api/client.gen.js";
import { listConversations, sendEmail } from "./hey-api/sdk.gen.js";

client.setConfig({ baseUrl: process.argv[2] ?? "" });
const { data, error } = await sendEmail({
  body: { from: "shop@example.com", to: "ann@example.org", subject: "Hello", body: "Hello" },
});
console.log(data?.id ?? error);
const page = await listConversations({ query: { limit: 1 } });
console.log(page.data?.items.length);

export async function refuseIncompleteMessages(): Promise<void> {
  // @ts-expect-error - a message needs a recipient
  await sendEmail({ body: { from: "shop@example.com", body: "Hello" } });
}
