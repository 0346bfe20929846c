/** Connections: addresses, keys, deadlines, repetitions and streams. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";

import { Server, ServerCredentials, status } from "@grpc/grpc-js";
import {
  CancelledError,
  Client,
  connect,
  DeadlineExceededError,
  InvalidArgumentError,
  NotFoundError,
  timestampText,
  toTimestamp,
  UnauthenticatedError,
  UnavailableError,
} from "tidemark-client";

import { event, LIMIT, newClient, newCustomer, NO_SERVER, NOW } from "./support.js";

const FAILURES = 2; // of each call of a failing server, before it answers

describe("a client of a real server", { skip: NO_SERVER, timeout: 2 * LIMIT }, () => {
  test("has every service", async () => {
    const client = await connect();
    assert.deepEqual((await client.alerts.listAlerts({ customerId: newCustomer() })).alerts, []);
    assert.deepEqual((await client.accounts.listPlans({})).plans, []);
    assert.deepEqual((await client.limits.listReservations({ customerId: "acme" })).reservations, []);
    assert.deepEqual((await client.webhooks.listEndpoints({})).endpoints, []);
    assert((await client.audit.listAuditEntries({})).entries);
    client.close();
  });

  test("says what is wrong", async () => {
    const client = newClient();
    await assert.rejects(client.alerts.getAlert({ alertId: "alr_unknown" }), (error) => {
      assert(error instanceof NotFoundError);
      assert.equal(error.reason, "ALERT_NOT_FOUND");
      assert(Object.values(error.metadata).includes("alr_unknown"));
      assert(error.requestId);
      return true;
    });
    await assert.rejects(client.alerts.createAlert({ alert: {} }), (error) => {
      assert(error instanceof InvalidArgumentError);
      const fields = error.violations.map((one) => one.field);
      assert(fields.includes("alert.scope") && fields.includes("alert.thresholds"), fields.join());
      return true;
    });
    const stranger = newClient({ apiKey: "tmk_wrong" });
    await assert.rejects(stranger.alerts.listAlerts({}), UnauthenticatedError);
    stranger.close();
    client.close();
  });

  test("takes its key from either variable", async () => {
    const { TIDEMARK_API_KEY } = process.env;
    try {
      delete process.env.TIDEMARK_API_KEY;
      process.env.TIDEMARK_KEY = TIDEMARK_API_KEY;
      const client = new Client();
      await client.alerts.listAlerts({});
      client.close();
      process.env.TIDEMARK_API_KEY = "tmk_other";
      const other = new Client();
      await assert.rejects(other.alerts.listAlerts({}), UnauthenticatedError);
      other.close();
    } finally {
      delete process.env.TIDEMARK_KEY;
      process.env.TIDEMARK_API_KEY = TIDEMARK_API_KEY;
    }
  });

  test("has streams, which end with their iteration, their signal and their client", async () => {
    const client = newClient();
    await assert.rejects(client.alerts.watchNotifications({ resumeToken: "wrong" }).next(), InvalidArgumentError);
    for await (const answer of client.alerts.watchNotifications({})) {
      assert(answer.heartbeat);
      break;
    }
    const ending = new AbortController();
    const aborted = client.alerts.watchNotifications({}, { signal: ending.signal });
    await aborted.next();
    ending.abort(new Error("enough"));
    await assert.rejects(aborted.next(), /enough/);
    assert.throws(() => AbortSignal.abort(new Error("before")).throwIfAborted(), /before/);
    await assert.rejects(client.alerts.listAlerts({}, { signal: ending.signal }), /enough/);
    const customerId = newCustomer();
    const requests = [1, 2].map((number) => ({ batch: { batchId: `b${number}`, events: [event(customerId)] } }));
    const outcomes = [];
    for await (const { outcome } of client.alerts.evaluateUsage(requests))
      if (outcome) outcomes.push(outcome.batchId);
    assert.deepEqual(outcomes, ["b1", "b2"]);
    const wrong = client.alerts.evaluateUsage(
      (async function* () {
        yield /** @type {any} */ (requests[0]);
        throw new Error("of the program");
      })(),
    );
    await assert.rejects(async () => {
      for await (const answer of wrong) assert(answer);
    }, /of the program/);
    const open = client.alerts.watchNotifications({});
    await open.next();
    client.close();
    await assert.rejects(open.next(), CancelledError);
    await assert.rejects(client.alerts.listAlerts({}), CancelledError);
  });

  test("keeps times as they are", async () => {
    const client = newClient();
    const { outcome } = await client.alerts.evaluateUsageBatch({ batch: { events: [event(newCustomer())] } });
    assert.equal(outcome?.accepted, 1);
    const exact = NOW.replace("Z", ".000001Z");
    assert.equal(timestampText(toTimestamp(exact)), exact);
    client.close();
  });
});

describe("a client", () => {
  test("finds mistakes in its options before a call", () => {
    assert.throws(() => new Client({ address: "https://tidemark.example.com" }), /without a scheme/);
    assert.throws(() => new Client({ apiKey: "two words" }), /not an API key/);
    assert.throws(() => new Client({ tls: { certificate: "-----BEGIN" } }), /belong together/);
    assert.throws(() => new Client({ tls: { authorities: "missing.pem" } }), { code: "ENOENT" });
    const client = new Client({ apiKey: "tmk_secret" });
    assert.equal(inspect(client, { depth: 9, showHidden: true }).includes("tmk_secret"), false);
    client.close();
  });

  test("that cannot connect says where", async () => {
    await assert.rejects(connect({ address: "127.0.0.1:1", timeoutMs: 50 }), (error) => {
      assert(error instanceof UnavailableError);
      assert.match(error.message, /no server answers at 127.0.0.1:1 within 50 ms; a server with TLS needs/);
      return true;
    });
  });

  test("repeats only what is safe, has deadlines, and names itself", async () => {
    const counts = /** @type {Record<string, number>} */ ({});
    let agent = "";
    const method = (/** @type {string} */ name) => (/** @type {any} */ call, /** @type {Function} */ reply) => {
      counts[name] = (counts[name] ?? 0) + 1;
      agent = String(call.metadata.get("user-agent")[0]);
      if (name === "ListAlerts") return; // it never answers
      if (name === "GetAlert" && Number(counts[name]) > FAILURES) reply(null, Buffer.alloc(0));
      else reply({ code: status.UNAVAILABLE, details: "away" });
    };
    const names = ["CreateAlert", "GetAlert", "ListAlerts"];
    const asIs = (/** @type {Buffer} */ content) => content;
    const server = new Server();
    server.addService(
      Object.fromEntries(
        names.map((name) => [
          name,
          {
            path: `/tidemark.v1.AlertService/${name}`,
            requestStream: false,
            responseStream: false,
            requestSerialize: asIs,
            requestDeserialize: asIs,
            responseSerialize: asIs,
            responseDeserialize: asIs,
          },
        ]),
      ),
      Object.fromEntries(names.map((name) => [name, method(name)])),
    );
    const port = await new Promise((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, found) =>
        error ? reject(error) : resolve(found),
      );
    });
    const client = newClient({ address: `127.0.0.1:${port}`, userAgent: "shop/1.2", apiKey: "" });
    await client.alerts.getAlert({});
    await assert.rejects(client.alerts.createAlert({}), UnavailableError);
    assert.deepEqual([counts.GetAlert, counts.CreateAlert], [FAILURES + 1, 1]);
    assert.match(agent, /^shop\/1.2 tidemark-client\/[0-9.]+ \(node /);
    await assert.rejects(client.alerts.listAlerts({}, { timeoutMs: 50 }), DeadlineExceededError);
    client.close();
    server.forceShutdown();
  });
});
