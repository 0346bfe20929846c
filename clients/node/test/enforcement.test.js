/** The guard and the cached checks against a real server. test_node_example.py kills it in between. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { InvalidArgumentError, UnauthenticatedError } from "tidemark-client";
import { LimitEnforcement, UsageOveragePolicy } from "tidemark-client/v1";

import { LIMIT, newClient, newCustomer, NO_SERVER, recording } from "./support.js";

const METRIC = "tokens";
const AWAY = "127.0.0.1:1";

/**
 * A hard limit of a new customer, and its state.
 * @param {import("tidemark-client").Client} client
 */
async function limited(client, amount = "500") {
  const customerId = newCustomer();
  await client.accounts.putLimit({
    limit: {
      limitId: customerId,
      amount,
      holder: { case: "customer", value: { customerId } },
      access: { case: "quantity", value: { metricId: METRIC } },
      enforcement: LimitEnforcement.HARD,
    },
  });
  const state = async () => {
    const { decision } = await client.limits.checkUsage({ usage: { customerId, metricId: METRIC, quantity: "0" } });
    return [decision?.limit?.counted, decision?.limit?.held, decision?.limit?.remaining];
  };
  return { customerId, state };
}

describe("a guard", { skip: NO_SERVER, timeout: 2 * LIMIT }, () => {
  test("reserves, settles and releases", async () => {
    const logger = recording();
    const client = newClient({ logger });
    const { customerId, state } = await limited(client);
    const usage = { customerId, metricId: METRIC, quantity: 100 };
    const guard = client.guard({ decisionMs: LIMIT, tryMs: LIMIT });
    const result = await guard.reserve(usage, async (hold) => {
      assert.deepEqual([hold.allowed, hold.decided, hold.quantity], [true, true, "100"]);
      assert.deepEqual(await state(), ["0", "100", "400"]);
      hold.settle("70.5");
      return "the result";
    });
    assert.equal(result, "the result");
    await guard.reserve(usage, () => {}); // nothing is said, so all was used
    await guard.reserve(usage, (hold) => hold.release());
    await assert.rejects(
      guard.reserve(usage, () => {
        throw new Error("of the work");
      }),
      /of the work/,
    );
    await assert.rejects(
      guard.reserve(usage, (hold) => {
        hold.settle(10n);
        throw new Error("after a part of the work");
      }),
      /after a part/,
    );
    assert.equal(await guard.close(), 0);
    assert.deepEqual(await state(), ["180.5", "0", "319.5"]);
    assert.deepEqual(logger.lines, []);
    client.close();
  });

  test("refuses what does not fit, or grants a part of it", async () => {
    const client = newClient();
    const { customerId, state } = await limited(client);
    const usage = { customerId, metricId: METRIC, quantity: 501 };
    const guard = client.guard({ decisionMs: LIMIT, tryMs: LIMIT });
    await guard.reserve(usage, (hold) => {
      assert.deepEqual([hold.allowed, hold.decided, hold.limitId], [false, true, customerId]);
    });
    const capping = client.guard({ decisionMs: LIMIT, tryMs: LIMIT, policy: UsageOveragePolicy.CAP });
    await capping.reserve(usage, (hold) => assert.deepEqual([hold.allowed, hold.quantity], [true, "500"]));
    assert.deepEqual([await guard.close(), await capping.close()], [0, 0]);
    assert.deepEqual(await state(), ["500", "0", "0"]);
    client.close();
  });

  test("decides by itself while no server answers, and throws for mistakes", async () => {
    const away = newClient({ address: AWAY });
    const usage = { customerId: "acme", metricId: METRIC, quantity: "7" };
    for (const failOpen of [true, false]) {
      const guard = away.guard({ failOpen, decisionMs: 50 });
      await guard.reserve(usage, (hold) => {
        assert.deepEqual([hold.allowed, hold.decided, hold.quantity], [failOpen, false, failOpen ? "7" : "0"]);
      });
      assert.equal(await guard.close(0), 1); // the event, or the release of what may have been held
    }
    away.close();
    const client = newClient();
    const guard = client.guard({ failOpen: true });
    await assert.rejects(
      guard.reserve({ ...usage, quantity: "much" }, () => assert.fail()),
      InvalidArgumentError,
    );
    await assert.rejects(
      guard.reserve({ ...usage, quantity: 0.5 }, () => assert.fail()),
      TypeError,
    );
    const stranger = newClient({ apiKey: "tmk_wrong" });
    await assert.rejects(
      stranger.guard({ failOpen: true }).reserve(usage, () => assert.fail()),
      UnauthenticatedError,
    );
    stranger.close();
    client.close();
  });
});

describe("cached checks", { skip: NO_SERVER, timeout: 2 * LIMIT }, () => {
  test("answer for many customers from few calls", async () => {
    const client = newClient();
    const { customerId } = await limited(client, "0");
    const checks = client.cachedChecks(METRIC, { maxAgeMs: LIMIT, checkMs: LIMIT });
    assert.equal(checks.cached(customerId), undefined);
    const others = Array.from({ length: 250 }, newCustomer);
    const found = await Promise.all([customerId, ...others, customerId].map((one) => checks.mayUse(one)));
    assert.deepEqual([found[0], found.at(-1)], [false, false]);
    assert(found.slice(1, -1).every(Boolean));
    assert.deepEqual([checks.cached(customerId), checks.cached(String(others[0]))], [false, true]);
    client.close();
    assert.equal(await checks.mayUse(customerId), false); // no call was needed
  });

  test("forget the customers that were read longest ago", async () => {
    const client = newClient();
    const checks = client.cachedChecks(METRIC, { maxAgeMs: LIMIT, checkMs: LIMIT, mostCached: 2 });
    for (const one of ["a", "b", "c"]) await checks.mayUse(one);
    assert.deepEqual(
      ["a", "b", "c"].map((one) => checks.cached(one)),
      [undefined, true, true],
    );
    client.close();
  });

  test("decide by themselves while no server answers, and throw for mistakes", async () => {
    const away = newClient({ address: AWAY });
    for (const failOpen of [true, false]) {
      assert.equal(await away.cachedChecks(METRIC, { failOpen, checkMs: 50 }).mayUse("acme"), failOpen);
    }
    away.close();
    const stranger = newClient({ apiKey: "tmk_wrong" });
    await assert.rejects(stranger.cachedChecks(METRIC, { checkMs: LIMIT }).mayUse("acme"), UnauthenticatedError);
    stranger.close();
  });
});
