/** The errors of failed calls: their class, what they carry, and their sentence. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, status } from "@grpc/grpc-js";
import * as client from "tidemark-client";
import { create } from "tidemark-client/v1";
import { toBinary } from "@bufbuild/protobuf";

import { errorOfCall, errorOfStatus } from "../dist/errors/errors.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../dist/generated/google/rpc/error_details_pb.js";
import { StatusSchema } from "../dist/generated/google/rpc/status_pb.js";

const DETAILS_KEY = "grpc-status-details-bin";
const BAD = anyPack(
  BadRequestSchema,
  create(BadRequestSchema, {
    fieldViolations: [
      { field: "alert.scope", description: "is missing" },
      { field: "alert.thresholds", description: "are 21, at most 20" },
    ],
  }),
);

/** @param {import("@bufbuild/protobuf/wkt").Any[]} details */
function failed(code = status.UNKNOWN, message = "no", ...details) {
  const metadata = new Metadata();
  metadata.set("x-request-id", "r-1");
  if (details.length) {
    metadata.set(DETAILS_KEY, Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details }))));
  }
  return Object.assign(new Error(), { code, details: message, metadata });
}

test("every code has a class of its own", () => {
  const classes = new Set();
  for (const code of Object.values(status)) {
    if (typeof code !== "number" || code === status.OK) continue;
    const error = errorOfCall(failed(code));
    classes.add(error.constructor);
    assert(error instanceof client.TidemarkError);
    assert.deepEqual([error.code, error.codeName, error.details, error.requestId], [code, status[code], "no", "r-1"]);
    assert.equal(error.name, error.constructor.name);
    assert.equal(Reflect.get(client, error.name), error.constructor);
  }
  assert.equal(classes.size, 16);
});

test("details become properties and a sentence", () => {
  const info = create(ErrorInfoSchema, { reason: "ERROR_REASON_INVALID_FIELD", metadata: { field: "alert.scope" } });
  const error = errorOfCall(
    failed(status.INVALID_ARGUMENT, "alert.scope: is missing", anyPack(ErrorInfoSchema, info), BAD),
  );
  assert(error instanceof client.InvalidArgumentError);
  assert.deepEqual(
    [error.reason, error.metadata, error.retryAfterMs],
    ["INVALID_FIELD", { field: "alert.scope" }, undefined],
  );
  assert.deepEqual(
    error.violations.map((one) => one.field),
    ["alert.scope", "alert.thresholds"],
  );
  const sentence = "alert.scope: is missing; alert.thresholds: are 21, at most 20 [INVALID_FIELD] (request r-1)";
  assert.equal(error.message, sentence);
});

test("a delay is in milliseconds", () => {
  const retry = create(RetryInfoSchema, { retryDelay: { seconds: 2n, nanos: 500_000_000 } });
  assert.equal(
    errorOfCall(failed(status.RESOURCE_EXHAUSTED, "busy", anyPack(RetryInfoSchema, retry))).retryAfterMs,
    2_500,
  );
});

test("a status within an answer becomes the same error", () => {
  const error = errorOfStatus(create(StatusSchema, { code: status.INVALID_ARGUMENT, message: "no", details: [BAD] }));
  assert(error instanceof client.InvalidArgumentError);
  assert.deepEqual([error.violations.length, error.requestId], [2, ""]);
  assert.equal(errorOfStatus(create(StatusSchema, { code: 4711, message: "new" })).constructor, client.UnknownError);
});

test("details that cannot be read leave code and message", () => {
  const call = failed(status.UNAVAILABLE, "by a proxy");
  call.metadata = new Metadata();
  call.metadata.set(DETAILS_KEY, Buffer.from([0xff, 0xff]));
  const error = errorOfCall(call);
  assert.deepEqual([error.code, error.message, error.reason], [status.UNAVAILABLE, "by a proxy [UNAVAILABLE]", ""]);
  const broken = { ...BAD, value: new Uint8Array([0xff, 0xff]) };
  assert.deepEqual(errorOfStatus(create(StatusSchema, { code: 3, message: "no", details: [broken] })).violations, []);
});

test("an error without a status is unknown, and one of the package stays", () => {
  const error = errorOfCall(new Error("closed"));
  assert.equal(error.constructor, client.UnknownError);
  assert.equal(errorOfCall(error), error);
});
