// Counts usage, and prints the notification that an alert of one's own makes of it.
//
//   TIDEMARK_SERVER=127.0.0.1:50051 node examples/crossings.js acme

import { setTimeout as sleep } from "node:timers/promises";

import { connect, MemoryTokens, parseEvent } from "tidemark-client";

const [, , customerId = "acme"] = process.argv;
const client = await connect(); // TIDEMARK_SERVER and TIDEMARK_API_KEY

const { alert } = await client.alerts.createAlert({
  alert: {
    displayName: "API calls",
    scope: { target: { case: "customer", value: { customerId } } },
    condition: { case: "usageThresholdReached", value: { metricId: "api_calls" } },
    thresholds: [{ value: "100" }, { value: "250" }],
  },
});
console.log(`the alert is ${alert?.alertId}`);

const tokens = new MemoryTokens(); // a program that restarts uses FileTokens
const ending = new AbortController();
const watcher = client.watcher({ alertIds: [String(alert?.alertId)], tokens, signal: ending.signal });
let seen = 0;
const watching = watcher.run((notification) => {
  for (const { level, value } of parseEvent(notification.notificationId, notification.body).transitions) {
    console.log(`${notification.customerId} reached ${level} with ${value}`);
    if (++seen === 2) ending.abort();
  }
});
while (!tokens.token) await sleep(10); // the watcher has begun, so it misses nothing

const writer = client.usageWriter();
for (let call = 0; call < 300; call++) await writer.send({ customerId, metricId: "api_calls", quantity: 1 });
await writer.close(); // waits until all are counted
console.log(`${writer.counts.acknowledged} events are counted`);

await watching;
client.close();
