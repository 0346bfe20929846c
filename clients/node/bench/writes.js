/**
 * Sends the events of a file with a usage writer, as fast as the server accepts them: `writes.js FILE`, with a
 * UsageBatch. It says "ready", waits for a line, and prints what it did. `make bench PART=client` runs it.
 */

import { once } from "node:events";
import { readFileSync } from "node:fs";

import { fromBinary } from "@bufbuild/protobuf";
import { connect } from "tidemark-client";
import { UsageBatchSchema } from "tidemark-client/v1";

const { events } = fromBinary(UsageBatchSchema, readFileSync(String(process.argv[2])));
const client = await connect();
let transitions = 0;
const writer = client.usageWriter({
  onOutcome: (outcome) => {
    transitions += outcome.transitions.length + (outcome.omitted?.transitionCount ?? 0);
  },
});
console.log("ready");
await once(process.stdin, "data");

const started = performance.now();
const before = process.cpuUsage();
await writer.sendAll(events);
await writer.flush();
const seconds = (performance.now() - started) / 1_000;
const { user, system } = process.cpuUsage(before);
const { acknowledged, duplicates } = writer.counts;
console.log(
  JSON.stringify({ seconds, accepted: acknowledged - duplicates, transitions, cpu: (user + system) / 1e6 }),
);

await writer.close();
client.close();
process.stdin.destroy();
