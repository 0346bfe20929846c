/** Writes usage, as the lines of its standard input say: "more" sends 100 events more, "close" closes the writer. */

import { createInterface } from "node:readline/promises";

import { events, LIMIT, newClient } from "../support.js";

const client = newClient();
const writer = client.usageWriter({ maxBatchEvents: 10, inFlight: 2 });
let sent = 0;

async function send() {
  await writer.sendAll(events(100, "acme", `part-${sent}`));
  sent += 100;
  console.log(`${sent} are sent`);
}

await send();
for await (const line of createInterface(process.stdin)) {
  if (line === "more") await send();
  else break;
}
await writer.close(LIMIT);
const { acknowledged, pending } = writer.counts;
console.log(`acknowledged: ${acknowledged}, pending: ${pending}`);
client.close();
process.stdin.destroy();
