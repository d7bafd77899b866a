// Prints every error of an AsyncAPI document, and nothing if it is valid.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const { severity, message, path } of diagnostics) {
  if (severity === 0) console.log(path.join("."), message);
}
