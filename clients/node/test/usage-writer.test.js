/** The usage writer against a real server: what it sends is counted once, and each event gets its own answer. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { AlreadyExistsError, InvalidArgumentError, UnauthenticatedError } from "tidemark-client";
import { TransitionKind } from "tidemark-client/v1";

import {
  Cable,
  counted,
  event,
  events,
  LIMIT,
  newClient,
  newCustomer,
  NO_SERVER,
  recording,
  until,
  watch,
} from "./support.js";

describe("a usage writer", { skip: NO_SERVER, timeout: 2 * LIMIT }, () => {
  test("counts every event, and reports crossings", async () => {
    const customer = newCustomer();
    /** @type {import("tidemark-client/v1").Transition[]} */
    const crossings = [];
    const client = newClient();
    await watch(client, customer, "100", "250");
    const writer = client.usageWriter({ maxBatchEvents: 7, onCrossing: (one) => crossings.push(one) });
    await writer.sendAll(events(250, customer));
    await writer.flush();
    assert.deepEqual(writer.counts, { acknowledged: 250, duplicates: 0, rejected: 0, pending: 0, resent: 0 });
    await writer.close();
    assert.equal(await counted(client, customer), 250);
    assert.deepEqual(
      crossings.map((one) => [one.level, one.eventId, one.kind]),
      [
        ["100", "e-99", TransitionKind.REACHED],
        ["250", "e-249", TransitionKind.REACHED],
      ],
    );
    client.close();
  });

  test("gives a bad event its error, which hides no good one", async () => {
    const customer = newCustomer();
    /** @type {[string, Error][]} */
    const rejected = [];
    const client = newClient();
    await watch(client, customer);
    const writer = client.usageWriter({
      streams: 1,
      onRejected: ({ eventId }, error) => rejected.push([eventId, error]),
    });
    const good = await Promise.all(events(3, customer).map((one) => writer.submit(one)));
    const bad = await writer.submit(event(customer, "bad", "much"));
    const conflict = await writer.submit(event(customer, "e-0", "2"));
    const again = await writer.submit(event(customer, "e-1"));
    await writer.send(event("", "silent"));
    await writer.flush();
    const outcome = await good[0]?.outcome;
    assert.deepEqual([outcome?.accepted, outcome?.duplicates], [3, 1]);
    assert.equal(await again.outcome, outcome);
    await assert.rejects(bad.outcome, (error) => {
      assert(error instanceof InvalidArgumentError);
      assert.match(String(error.violations[0]?.field), /quantity$/);
      return true;
    });
    await assert.rejects(
      conflict.outcome,
      (error) => error instanceof AlreadyExistsError && error.reason === "EVENT_CONFLICT",
    );
    assert.deepEqual(
      rejected.map(([name, error]) => [name, error.constructor]),
      [["silent", InvalidArgumentError]],
    );
    const { acknowledged, duplicates, rejected: count } = writer.counts;
    assert.deepEqual([acknowledged, duplicates, count], [4, 1, 3]);
    await writer.close();
    assert.equal(await counted(client, customer), 3);
    client.close();
  });

  test("goes on after an error of a function of the program", async () => {
    const customer = newCustomer();
    const logger = recording();
    const client = newClient({ logger });
    await watch(client, customer, "5");
    const writer = client.usageWriter({
      maxBatchEvents: 1,
      onCrossing() {
        throw new Error("of the program");
      },
    });
    await writer.sendAll(events(10, customer));
    await writer.close();
    assert.equal(await counted(client, customer), 10);
    assert.deepEqual(logger.lines, ["onCrossing threw an error: Error: of the program"]);
    client.close();
  });

  test("loses and repeats nothing when connections are cut", async () => {
    const customer = newCustomer();
    /** @type {string[]} */
    const interruptions = [];
    const client = newClient();
    await watch(client, customer);
    const cable = await new Cable(String(process.env.TIDEMARK_SERVER)).start();
    const cut = newClient({ address: cable.address });
    const writer = cut.usageWriter({
      maxBatchEvents: 20,
      inFlight: 4,
      onInterruption: (sentence) => interruptions.push(sentence),
    });
    for (let part = 1; part <= 5; part++) {
      const before = writer.counts.acknowledged;
      await writer.sendAll(events(200, customer, `part${part}`));
      await until(() => writer.counts.acknowledged > before);
      cable.cut();
    }
    await writer.flush(LIMIT);
    assert.equal(await counted(client, customer), 1_000);
    assert.equal(writer.counts.acknowledged, 1_000);
    assert(interruptions.length > 0);
    await writer.close();
    cut.close();
    cable.stop();
    client.close();
  });

  test("fails with its events when the key may not send", async () => {
    const stranger = newClient({ apiKey: "tmk_unknown" });
    const writer = stranger.usageWriter();
    const { outcome } = await writer.submit(event());
    await assert.rejects(outcome, UnauthenticatedError);
    await assert.rejects(writer.send(event()), UnauthenticatedError);
    await assert.rejects(writer.flush(), UnauthenticatedError);
    await assert.rejects(writer.close(), UnauthenticatedError);
    stranger.close();
  });

  test("keeps a time to the nanosecond, and a decimal to its last digit", async () => {
    const customer = newCustomer();
    const client = newClient();
    await watch(client, customer, "0.000000000000000002");
    const writer = client.usageWriter();
    const time = String(process.env.TIDEMARK_TEST_NOW).replace("Z", ".000001Z");
    const exact = { customerId: customer, metricId: "calls", eventTime: time };
    await writer.send({ ...exact, quantity: "0.000000000000000001" });
    const { outcome } = await writer.submit({ ...exact, quantity: "0.000000000000000001" });
    const [transition] = (await outcome).transitions;
    assert.equal(transition?.value, "0.000000000000000002");
    assert.deepEqual([transition?.eventTime?.nanos, typeof transition?.eventTime?.seconds], [1_000, "bigint"]);
    await writer.close();
    client.close();
  });
});
