// The API of Tidemark, from a file of descriptors: `buf build --output tidemark.binpb` in the repository writes one.

import { readFileSync } from "node:fs";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const { status } = grpc;

// What a repetition can change. All others are final: the same request gets the same answer.
export const PASSING = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
  status.INTERNAL,
  status.UNKNOWN,
  status.CANCELLED,
]);

// What an operator can change: the key gets its role, or is exchanged. What happened is still true then.
export const REPAIRABLE = new Set([status.UNAUTHENTICATED, status.PERMISSION_DENIED]);

// A function `call(service, method, request, milliseconds)`, which resolves with the answer or rejects with an error
// that has a `code`. key: the API key, or undefined where the server has none.
export function connect(server, key, descriptors, credentials = grpc.credentials.createInsecure()) {
  const definition = protoLoader.loadFileDescriptorSetFromBuffer(readFileSync(descriptors), {
    longs: String,
    enums: String,
    oneofs: true,
  });
  const api = grpc.loadPackageDefinition(definition).tidemark.v1;
  // The streams of a gateway that was idle must not wait for minutes after the server came back.
  const options = { "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 2000 };
  const clients = new Map();
  const metadata = new grpc.Metadata();
  if (key) metadata.set("authorization", `Bearer ${key}`);
  return (service, method, request, milliseconds) => {
    if (!clients.has(service)) clients.set(service, new api[service](server, credentials, options));
    return new Promise((resolve, reject) => {
      clients.get(service)[method](request, metadata, { deadline: Date.now() + milliseconds }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  };
}
