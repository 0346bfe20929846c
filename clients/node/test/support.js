/** For the tests: a client of the server that the tests get, usage, a server that follows a script, and a cable. */

import { once } from "node:events";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, status } from "@grpc/grpc-js";
import { Client, usageEvent } from "tidemark-client";
import * as v1 from "tidemark-client/v1";

export const METRIC = "calls";
/** Milliseconds, of everything that is waited for. */
export const LIMIT = 60_000;
/** The time of the server's clock, which stands still. */
export const NOW = process.env.TIDEMARK_TEST_NOW ?? "";
/** Why a test that needs a real server is skipped; false: there is one. */
export const NO_SERVER = NOW ? false : "it needs the server of tests/clients/node: make test-clients";
export const SILENT = { warn() {}, error() {} };

/** A logger that keeps what it gets. */
export function recording() {
  /** @type {string[]} */
  const lines = [];
  return {
    lines,
    warn: (/** @type {string} */ line) => lines.push(line),
    error: (/** @type {string} */ line) => lines.push(line),
  };
}

/**
 * A client; address and key of the server of the tests come from the environment.
 * @param {import("tidemark-client").ClientOptions} options
 */
export function newClient(options = {}) {
  return new Client({ timeoutMs: LIMIT, logger: SILENT, ...options });
}

/** Customers of a test of its own. */
let customers = 0;
export function newCustomer() {
  customers += 1;
  return `customer-${process.pid}-${customers}`;
}

/** One use, at the time of the server's clock. */
export function event(customerId = "acme", eventId = "", quantity = "1") {
  return usageEvent({ customerId, metricId: METRIC, quantity, eventId, eventTime: NOW || new Date() });
}

/** Events with different ids. */
export function events(count = 1, customerId = "acme", prefix = "e") {
  return Array.from({ length: count }, (_, number) => event(customerId, `${prefix}-${number}`));
}

/**
 * An alert on the usage of one customer.
 * @param {Client} client
 * @param {string} customerId
 * @param {string[]} values
 */
export async function watch(client, customerId, ...values) {
  const { alert } = await client.alerts.createAlert({
    alert: {
      displayName: "Calls",
      scope: { target: { case: "customer", value: { customerId } } },
      condition: { case: "usageThresholdReached", value: { metricId: METRIC } },
      thresholds: (values.length ? values : ["1000000000"]).map((value) => ({ value })),
    },
  });
  return alert?.alertId ?? "";
}

/**
 * The usage that the alert sees.
 * @param {Client} client
 * @param {string} customerId
 */
export async function counted(client, customerId) {
  const { customerAlerts } = await client.alerts.listCustomerAlerts({ customerId });
  return customerAlerts.flatMap((one) => one.gauges).reduce((sum, { gauge }) => sum + Number(gauge?.value), 0);
}

/**
 * Waits until a function returns something true.
 * @param {() => unknown} condition
 */
export async function until(condition) {
  const end = Date.now() + LIMIT;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not true within ${LIMIT} ms: ${condition}`);
    await sleep(10);
  }
}

/** A failure of a call of a scripted server. */
export class Failure extends Error {
  constructor(/** @type {status} */ code, details = "scripted") {
    super(details);
    this.code = code;
    this.details = details;
  }
}

/** @typedef {{ read(): Promise<import("tidemark-client/v1").UsageBatch | undefined>, write(answer: object): void }} Stream */
/** @typedef {(stream: Stream) => Promise<void>} Script */

/** The answer to a message of which all is counted. */
export function answer(/** @type {import("tidemark-client/v1").UsageBatch} */ batch) {
  return { outcome: { batchId: batch.batchId, accepted: batch.events.length } };
}

/** Answers every message. @type {Script} */
export async function answersAll(stream) {
  for (let batch; (batch = await stream.read());) stream.write(answer(batch));
}

/** A server of EvaluateUsage whose n-th stream follows the n-th script; all further ones follow the last. */
export class Scripted {
  streams = 0;
  /** The ids of the events of each stream. @type {string[][]} */
  received = [];
  /** The ids of the events of each call with one answer. @type {string[][]} */
  alone = [];
  server = new Server();
  address = "";

  /** @param {Script[]} scripts */
  constructor(...scripts) {
    const script = () => /** @type {Script} */ (scripts[Math.min(this.streams, scripts.length) - 1]);
    this.server.addService(
      {
        EvaluateUsage: definition("EvaluateUsage", true),
        EvaluateUsageBatch: definition("EvaluateUsageBatch", false),
      },
      {
        EvaluateUsage: (/** @type {any} */ call) => {
          this.streams += 1;
          const seen = /** @type {string[]} */ ([]);
          this.received.push(seen);
          const requests = /** @type {any[]} */ ([]);
          let hasEnded = false;
          let wake = () => {};
          const end = () => {
            hasEnded = true;
            wake();
          };
          call.on("data", (/** @type {any} */ request) => {
            requests.push(request);
            wake();
          });
          for (const name of ["end", "error", "cancelled"]) call.on(name, end);
          const stream = {
            read: async () => {
              while (requests.length === 0 && !hasEnded)
                await new Promise((resolve) => (wake = () => resolve(undefined)));
              const batch = requests.shift()?.batch;
              seen.push(...(batch?.events ?? []).map((/** @type {any} */ one) => one.eventId));
              return batch;
            },
            write: (/** @type {object} */ message) => call.write(v1.create(v1.EvaluateUsageResponseSchema, message)),
          };
          script()(stream).then(
            () => call.end(),
            (error) => call.emit("error", error),
          );
        },
        EvaluateUsageBatch: (/** @type {any} */ call, /** @type {any} */ reply) => {
          const { batch } = call.request;
          this.alone.push(batch.events.map((/** @type {any} */ one) => one.eventId));
          const left = [batch];
          const stream = {
            read: async () => left.shift(),
            write: (/** @type {object} */ message) => reply(null, v1.create(v1.EvaluateUsageResponseSchema, message)),
          };
          script()(stream).catch(reply);
        },
      },
    );
  }

  async start() {
    const port = await new Promise((resolve, reject) => {
      this.server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, found) =>
        error ? reject(error) : resolve(found),
      );
    });
    this.address = `127.0.0.1:${port}`;
    return this;
  }

  stop() {
    this.server.forceShutdown();
  }
}

function definition(/** @type {string} */ name, isStream = false) {
  return {
    path: `/tidemark.v1.AlertService/${name}`,
    requestStream: isStream,
    responseStream: isStream,
    requestSerialize: (/** @type {any} */ value) => Buffer.from(toBinary(v1.EvaluateUsageRequestSchema, value)),
    requestDeserialize: (/** @type {Buffer} */ content) => fromBinary(v1.EvaluateUsageRequestSchema, content),
    responseSerialize: (/** @type {any} */ value) => Buffer.from(toBinary(v1.EvaluateUsageResponseSchema, value)),
    responseDeserialize: (/** @type {Buffer} */ content) => fromBinary(v1.EvaluateUsageResponseSchema, content),
  };
}

/** A proxy to a server whose connections can be cut; new connections are possible at once. */
export class Cable {
  address = "";
  /** @type {Set<net.Socket>} */
  #ends = new Set();
  #server;

  constructor(/** @type {string} */ address) {
    const port = Number(address.split(":").at(-1));
    this.#server = net.createServer((near) => {
      const far = net.connect(port, "127.0.0.1");
      for (const [one, other] of /** @type {const} */ ([
        [near, far],
        [far, near],
      ])) {
        this.#ends.add(one);
        one.on("error", () => {});
        one.on("close", () => {
          this.#ends.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
  }

  async start() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.address = `127.0.0.1:${/** @type {net.AddressInfo} */ (this.#server.address()).port}`;
    return this;
  }

  /** Aborts every connection. */
  cut() {
    for (const end of this.#ends) end.resetAndDestroy();
  }

  stop() {
    this.#server.close();
    this.cut();
  }
}
