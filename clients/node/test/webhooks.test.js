/** Verification of webhooks: the requests with which every client is tested, and what is Node's own. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { parseEvent, WebhookNotVerifiedError, WebhookVerifier } from "tidemark-client";

const VECTORS = JSON.parse(
  readFileSync(new URL("../../../tests/clients/webhook_vectors.json", import.meta.url), "utf-8"),
);

describe("a webhook verifier", () => {
  for (const { name, keys, headers, body_base64, time, refused, event } of VECTORS.cases) {
    test(`judges as every client does: ${name}`, () => {
      const verifier = new WebhookVerifier(keys);
      const body = Buffer.from(body_base64, "base64");
      if (refused !== undefined) {
        assert.throws(
          () => verifier.verify(headers, body, time),
          (error) => error instanceof WebhookNotVerifiedError && error.message.includes(refused),
        );
        return;
      }
      const found = verifier.verify(headers, body, time);
      assert.deepEqual(
        {
          id: found.id,
          type: found.type,
          customer_id: found.customerId,
          alert_id: found.alertId,
          sequence: found.sequence,
          value: found.value,
          previous_value: found.previousValue,
          levels: found.transitions.map((one) => one.level),
        },
        event,
      );
    });
  }

  for (const keys of VECTORS.bad_keys) {
    test(`refuses bad keys without showing them: ${JSON.stringify(keys).slice(0, 20)}`, () => {
      assert.throws(
        () => new WebhookVerifier(keys),
        (error) => error instanceof RangeError && !error.message.includes("AAAA"),
      );
    });
  }

  test("takes headers of fetch and of node:http, a body as text, and a time of any form", () => {
    const [{ keys, headers, body_base64, time }] = VECTORS.cases;
    const verifier = new WebhookVerifier(keys[0]);
    const body = Buffer.from(body_base64, "base64");
    const listed = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]]));
    for (const one of [new Headers(headers), headers, listed]) {
      assert.equal(verifier.verify(one, body.toString(), new Date(time)).time, "2026-03-15T12:00:00.000001Z");
    }
    assert.throws(() => verifier.verify(headers, body), /seconds away/); // now is another time
    const patient = new WebhookVerifier(keys, { toleranceMs: Infinity });
    assert.equal(patient.verify(headers, body).id, "ntf_1");
  });

  test("keeps its keys out of logs", () => {
    const verifier = new WebhookVerifier(VECTORS.cases[0].keys);
    assert.equal(JSON.stringify(verifier).includes("whsec_"), false);
  });
});

test("an event that is about something else has no such fields", () => {
  const event = parseEvent(
    "ntf_2",
    '{"type":"new","timestamp":"2026-03-15T12:00:00Z","data":{"test":true,"sequence":"x"}}',
  );
  assert.deepEqual(
    [event.id, event.isTest, event.alertId, event.customerId, event.sequence, event.value, event.transitions],
    ["ntf_2", true, "", "", 0, undefined, []],
  );
});
