/** The watcher against a real server: each notification once, and again only if the program had not done with it. */

import assert from "node:assert/strict";
import { mkdtemp, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { FileTokens, InvalidArgumentError, MemoryTokens, parseEvent } from "tidemark-client";
import { EventType } from "tidemark-client/v1";

import { Cable, event, LIMIT, newClient, newCustomer, NO_SERVER, until, watch } from "./support.js";

/** @typedef {import("tidemark-client/v1").Notification} Notification */

const LEVELS = ["1", "2", "3", "4", "5"];
const folder = () => mkdtemp(join(tmpdir(), "tidemark-"));

/** The level that a notification reports. */
function level(/** @type {Notification} */ { detail }) {
  assert(detail.case === "evaluation");
  return detail.value.transitions[0]?.level;
}

/**
 * Uses one after the other, each of which reaches a threshold in a commit of its own.
 * @param {import("tidemark-client").Client} client
 * @param {string} customer
 */
async function reach(client, customer, count = 1, prefix = "e") {
  const writer = client.usageWriter();
  for (let number = 0; number < count; number++) {
    await writer.send(event(customer, `${prefix}${number}`));
    await writer.flush(LIMIT);
  }
  await writer.close();
}

/**
 * Keeps the present position, so that nothing after it is missed.
 * @param {import("tidemark-client").Client} client
 * @param {import("tidemark-client").WatchOptions} options
 */
async function begin(client, options) {
  for await (const position of client.watcher(options).positions()) {
    await options.tokens?.save(position.resumeToken);
    return;
  }
}

describe("a watcher", { skip: NO_SERVER, timeout: 2 * LIMIT }, () => {
  test("goes on after a restart of its program, without loss, and repeats only what was not done", async () => {
    const customer = newCustomer();
    const path = join(await folder(), "token");
    const options = () => ({ customerIds: [customer], tokens: new FileTokens(path) });
    /** @type {Notification[]} */
    const done = [];
    const stops = new Set(["3"]);
    const handle = async (/** @type {Notification} */ notification) => {
      const found = level(notification);
      if (stops.delete(String(found))) throw new Error("stopped");
      done.push(notification);
      if (found === "5") throw new Error("stopped");
    };
    const client = newClient();
    await watch(client, customer, ...LEVELS);
    await begin(client, options());
    await reach(client, customer, 5);
    await assert.rejects(client.watcher(options()).run(handle), /stopped/);
    assert.deepEqual(done.map(level), ["1", "2"]);
    client.close();
    const restarted = newClient();
    await assert.rejects(restarted.watcher(options()).run(handle), /stopped/);
    assert.deepEqual(done.map(level), LEVELS);
    assert.equal(new Set(done.map((one) => one.notificationId)).size, 5);
    restarted.close();
  });

  test("misses and repeats nothing when connections are cut", async () => {
    const customer = newCustomer();
    /** @type {string[]} */
    const interruptions = [];
    /** @type {Notification[]} */
    const seen = [];
    const client = newClient();
    await watch(client, customer, ...LEVELS);
    const cable = await new Cable(String(process.env.TIDEMARK_SERVER)).start();
    const cut = newClient({ address: cable.address });
    const ending = new AbortController();
    const options = { customerIds: [customer], tokens: new MemoryTokens() };
    await begin(client, options);
    const watching = cut
      .watcher({ ...options, signal: ending.signal, onInterruption: (sentence) => interruptions.push(sentence) })
      .run((notification) => seen.push(notification));
    for (let number = 0; number < 5; number++) {
      await reach(client, customer, 1, `e${number}-`);
      await until(() => seen.length > number);
      cable.cut();
    }
    ending.abort();
    await watching;
    assert.deepEqual(seen.map(level), LEVELS);
    assert(interruptions.length > 0);
    cut.close();
    cable.stop();
    client.close();
  });

  test("hands over what its filters choose, and a token belongs to them", async () => {
    const [customer, other] = [newCustomer(), newCustomer()];
    const client = newClient();
    for (const one of [customer, other]) await watch(client, one, ...LEVELS);
    const options = { customerIds: [customer], eventTypes: [EventType.ALERT_REACHED], tokens: new MemoryTokens() };
    await begin(client, options);
    await reach(client, other);
    await reach(client, customer, 2);
    /** @type {Notification[]} */
    const seen = [];
    for await (const notification of client.watcher(options)) if (seen.push(notification) === 2) break;
    assert.deepEqual(
      seen.map((one) => one.customerId),
      [customer, customer],
    );
    const wrong = client.watcher({ customerIds: [other], tokens: options.tokens });
    await assert.rejects(
      wrong.run(() => {}),
      (error) => error instanceof InvalidArgumentError && error.reason === "RESUME_TOKEN_INVALID",
    );
    client.close();
  });

  test("hands over a body that is a typed event", async () => {
    const customer = newCustomer();
    const client = newClient();
    await watch(client, customer, "2");
    const options = { customerIds: [customer], tokens: new MemoryTokens() };
    await begin(client, options);
    const writer = client.usageWriter();
    await writer.send(event(customer, "first", "5"));
    await writer.close();
    for await (const notification of client.watcher(options)) {
      const found = parseEvent("", notification.body);
      assert.deepEqual(
        [found.id, found.type, found.customerId, found.alertId, found.value, found.previousValue, found.sequence],
        [notification.notificationId, "alert.reached", customer, notification.alertId, "5", "0", 1],
      );
      assert.deepEqual(
        found.transitions.map((one) => [one.kind, one.level, one.value]),
        [["REACHED", "2", "5"]],
      );
      break;
    }
    client.close();
  });
});

test("the file of a token is replaced as a whole", async () => {
  const path = await folder();
  const tokens = new FileTokens(join(path, "token"));
  assert.equal(await tokens.load(), "");
  for (const token of ["one", "two"]) {
    await tokens.save(token);
    assert.equal(await tokens.load(), token);
  }
  assert.deepEqual(await readdir(path), ["token"]);
  await assert.rejects(new FileTokens(join(path, "missing", "token")).save("three"), { code: "ENOENT" });
});
