/** The usage writer against a scripted server: bounds, servers that go away, and events that cannot be recorded. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { status } from "@grpc/grpc-js";
import { toBinary } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { CancelledError, ConnectionLostError, InternalError, usageEvent } from "tidemark-client";
import { create, EvaluateUsageRequestSchema, toJson, UsageEventSchema } from "tidemark-client/v1";

import { encodeEvent, encodeRequest } from "../dist/usage/wire.js";
import { answer, answersAll, event, events, Failure, LIMIT, newClient, Scripted, until } from "./support.js";

const AWAY = "127.0.0.1:1";

/** A script that answers only after `open` was called. */
function held() {
  /** @type {() => void} */
  let open = () => {};
  const gate = new Promise((resolve) => {
    open = () => resolve(undefined);
  });
  /** @type {import("./support.js").Script} */
  const script = async (stream) => {
    for (let batch; (batch = await stream.read());) {
      await gate;
      stream.write(answer(batch));
    }
  };
  return { script, open };
}

/**
 * A server with scripts, and a client of it.
 * @param {import("node:test").TestContext} t
 * @param {import("./support.js").Script[]} scripts
 */
async function scripted(t, ...scripts) {
  const server = await new Scripted(...scripts).start();
  const client = newClient({ address: server.address });
  t.after(() => {
    client.close();
    server.stop();
  });
  return { server, client };
}

describe("a usage writer", { timeout: 2 * LIMIT }, () => {
  test("makes its caller wait for a slow server, with bounded memory", async (t) => {
    const { script, open } = held();
    const { server, client } = await scripted(t, script);
    const writer = client.usageWriter({ maxBatchEvents: 5, inFlight: 2, maxPendingEvents: 20 });
    let isSent = false;
    const sending = writer.sendAll(events(200)).then(() => {
      isSent = true;
    });
    const more = Promise.all(events(50, "acme", "more").map((one) => writer.send(one)));
    await until(() => writer.counts.pending >= 20);
    await sleep(50);
    assert.equal(isSent, false);
    assert.equal(writer.counts.pending, 20);
    open();
    await Promise.all([sending, more]);
    await writer.flush(LIMIT);
    assert.equal(writer.counts.acknowledged, 250);
    await writer.close();
    const first = server.received.flat().filter((name) => name.startsWith("e-"));
    assert.deepEqual(
      first,
      events(200).map((one) => one.eventId),
    ); // in their order
  });

  test("lets the event loop run while its caller fills it", async (t) => {
    const { client } = await scripted(t, answersAll);
    const writer = client.usageWriter();
    let turns = 0;
    let turn = setImmediate(function next() {
      turns += 1;
      turn = setImmediate(next);
    });
    await writer.sendAll(events(3_000));
    for (const one of events(3_000, "acme", "more")) await writer.send(one);
    clearImmediate(turn);
    assert(turns >= 10, `${turns}`);
    await writer.close();
    assert.equal(writer.counts.acknowledged, 6_000);
  });

  test("bounds memory in bytes, too", async (t) => {
    const { script, open } = held();
    const { client } = await scripted(t, script);
    const writer = client.usageWriter({ maxBatchBytes: 4_000, inFlight: 2, maxPendingBytes: 10_000 });
    const large = Array.from({ length: 100 }, (_, number) => ({
      ...event(),
      eventId: `${number}`,
      eventName: "x".repeat(900),
    }));
    const sending = writer.sendAll(large);
    await until(() => writer.counts.pending >= 8);
    await sleep(50);
    assert(writer.counts.pending <= 12, `${writer.counts.pending}`);
    open();
    await sending;
    await writer.close();
    assert.equal(writer.counts.acknowledged, 100);
  });

  test("goes on with another stream when the server says that it goes away", async (t) => {
    /** @type {import("./support.js").Script} */
    const goesAway = async (stream) => {
      const batch = await stream.read();
      if (batch) stream.write(answer(batch));
      stream.write({ goingAway: true });
      await sleep(50);
    };
    const { server, client } = await scripted(t, goesAway, goesAway, answersAll);
    /** @type {string[]} */
    const interruptions = [];
    const writer = client.usageWriter({
      maxBatchEvents: 5,
      streams: 1,
      onInterruption: (one) => interruptions.push(one),
    });
    await writer.sendAll(events(50));
    await writer.close();
    assert.equal(writer.counts.acknowledged, 50);
    assert.equal(server.streams, 3);
    assert.deepEqual([...new Set(interruptions)], ["the server is shutting down or restarting"]);
  });

  test("rejects an event alone with which the server fails", async (t) => {
    const { client } = await scripted(t, async (stream) => {
      for (let batch; (batch = await stream.read());) {
        if (batch.events.some((one) => one.eventId === "e-13")) throw new Failure(status.INTERNAL, "it failed");
        stream.write(answer(batch));
      }
    });
    const writer = client.usageWriter({ maxBatchEvents: 10 });
    const taken = await Promise.all(events(40).map((one) => writer.submit(one)));
    await writer.flush(LIMIT);
    const results = await Promise.allSettled(taken.map((one) => one.outcome));
    const failed = results.flatMap((one, at) => (one.status === "rejected" ? [[at, one.reason.constructor]] : []));
    assert.deepEqual(failed, [[13, InternalError]]);
    assert.deepEqual([writer.counts.acknowledged, writer.counts.rejected], [39, 1]);
    await writer.close();
  });

  test("sends an event again that the server could not record", async (t) => {
    /** @type {Record<string, number>} */
    const tries = {};
    const { client } = await scripted(t, async (stream) => {
      for (let batch; (batch = await stream.read());) {
        /** @type {object[]} */
        const rejected = [];
        batch.events.forEach(({ eventId }, index) => {
          tries[eventId] = (tries[eventId] ?? 0) + 1;
          const isForgotten = eventId === "never" || (eventId === "late" && Number(tries.late) < 3);
          if (isForgotten) rejected.push({ index, status: { code: status.INTERNAL, message: "not recorded" } });
        });
        stream.write({
          outcome: { batchId: batch.batchId, accepted: batch.events.length - rejected.length, rejected },
        });
      }
    });
    const writer = client.usageWriter();
    const [late, never, good] = await Promise.all(
      ["late", "never", "good"].map((name) => writer.submit(event("acme", name))),
    );
    await writer.flush(LIMIT);
    assert.equal((await late?.outcome)?.accepted, 1);
    assert.equal((await good?.outcome)?.accepted, 1);
    await assert.rejects(never?.outcome ?? Promise.resolve(), { name: "InternalError", details: "not recorded" });
    assert.deepEqual(tries, { late: 3, never: 3, good: 1 });
    await writer.close();
  });

  test("fails when its patience ends, and when its client is closed", async () => {
    const away = newClient({ address: AWAY });
    const impatient = away.usageWriter({ patienceMs: 0, onInterruption() {} });
    const { outcome } = await impatient.submit(event());
    await assert.rejects(outcome, ConnectionLostError);
    await assert.rejects(impatient.close(), ConnectionLostError);
    const patient = away.usageWriter({ onInterruption() {} });
    const waiting = await patient.submit(event());
    away.close();
    await assert.rejects(waiting.outcome, CancelledError);
    await assert.rejects(patient.close(), CancelledError);
  });

  test("says how much is lost when it is closed too early", async () => {
    const away = newClient({ address: AWAY });
    const writer = away.usageWriter({ onInterruption() {} });
    await writer.send(event());
    await assert.rejects(writer.close(0), /1 usage events are not acknowledged/);
    await assert.rejects(writer.send(event()), /closed/);
    away.close();
  });

  test("opens no stream without usage, and can be closed twice", async (t) => {
    const { server, client } = await scripted(t, answersAll);
    const writer = client.usageWriter();
    await writer.close();
    await writer.close();
    assert.equal(server.streams, 0);
  });

  test("refuses options that are out of their bounds", () => {
    const client = newClient({ address: AWAY });
    for (const wrong of [
      { maxBatchEvents: 0 },
      { maxBatchEvents: 5_001 },
      { lingerMs: -1 },
      { inFlight: 65 },
      { streams: NaN },
    ]) {
      assert.throws(() => client.usageWriter(wrong), new RegExp(String(Object.keys(wrong)[0])));
    }
    client.close();
  });
});

describe("an event", () => {
  test("is exact and complete", () => {
    const made = usageEvent({
      customerId: "acme",
      metricId: "calls",
      quantity: 12345678901234567890n,
      eventTime: "2026-03-15T12:00:00.000001Z",
      properties: { region: "eu" },
    });
    assert.deepEqual(
      [made.quantity, made.properties.region, made.eventTime?.nanos],
      ["12345678901234567890", "eu", 1_000],
    );
    assert.notEqual(made.eventId, usageEvent({ customerId: "acme" }).eventId);
    assert(usageEvent({ customerId: "acme" }).eventTime);
    for (const quantity of [0.1, 2 ** 53, NaN]) {
      assert.throws(() => usageEvent({ customerId: "acme", quantity }), /exact/);
    }
    assert.throws(() => usageEvent({ customerId: "acme", eventTime: "yesterday" }), /RFC 3339/);
    assert.throws(() => usageEvent({ customerId: "acme", eventTime: new Date(NaN) }), /no time/);
  });

  test("that is too large is refused", () => {
    assert.throws(() => encodeEvent(create(UsageEventSchema, { customerId: "x".repeat(1 << 20) })), /larger than/);
  });

  test("is encoded as protobuf encodes it, whatever it has", () => {
    const texts = [
      "",
      "x",
      "ü€😀",
      "\ud800",
      "x".repeat(127),
      "x".repeat(128),
      "€".repeat(6_000),
      "x".repeat(70_000),
    ];
    const times = [undefined, [0n, 0], [1n, 0], [0n, 1], [253402300799n, 999_999_999], [-1n, 5], [4294967296n, 128]];
    const names = Object.values(UsageEventSchema.fields).map((field) => field.localName);
    for (const text of texts) {
      for (const time of times) {
        const made = create(UsageEventSchema, {
          properties: { [text]: text, key: "value", ["k".repeat(120)]: text },
        });
        for (const name of names) if (!["properties", "eventTime"].includes(name)) Reflect.set(made, name, text);
        if (time)
          made.eventTime = create(TimestampSchema, { seconds: BigInt(String(time[0])), nanos: Number(time[1]) });
        assert.deepEqual(Buffer.from(encodeEvent(made)), Buffer.from(toBinary(UsageEventSchema, made)));
      }
    }
    const unknown = create(UsageEventSchema, { eventId: "e" });
    unknown.$unknown = [{ no: 99, wireType: 0, data: new Uint8Array([1]) }];
    assert.deepEqual(Buffer.from(encodeEvent(unknown)), Buffer.from(toBinary(UsageEventSchema, unknown)));
    const wrong = /** @type {any} */ (create(UsageEventSchema));
    wrong.quantity = 5;
    assert.deepEqual(Buffer.from(encodeEvent(wrong)), Buffer.from(toBinary(UsageEventSchema, wrong)));
  });

  for (const size of [0, 1, 60, 900, 1_100, 20_000]) {
    test(`of ${size} bytes is in a message as protobuf encodes it`, () => {
      const made = [event(), event("x".repeat(size)), create(UsageEventSchema)];
      for (const [includeGauges, maxAnswerBytes] of /** @type {const} */ ([
        [false, 0],
        [true, 1 << 24],
      ])) {
        const expected = create(EvaluateUsageRequestSchema, {
          batch: { batchId: "b-1", events: made, includeGauges, maxAnswerBytes },
        });
        const found = encodeRequest("b-1", made.map(encodeEvent), { includeGauges, maxBytes: maxAnswerBytes });
        assert.deepEqual(
          found,
          Buffer.from(toBinary(EvaluateUsageRequestSchema, expected)),
          JSON.stringify(toJson(EvaluateUsageRequestSchema, expected)),
        );
      }
    });
  }
});
