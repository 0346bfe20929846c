/** What a failed call reports about its cause: a `google.rpc.Status` in its trailing metadata, with details. */

import { create, type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Metadata, type ServiceError, status as codes } from "@grpc/grpc-js";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../generated/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../generated/google/rpc/status_pb.js";
import { durationMs } from "../times.js";

const DETAILS_KEY = "grpc-status-details-bin";
const REQUEST_ID_KEY = "x-request-id";
const REASON_PREFIX = "ERROR_REASON_";

/** With these codes a server reports that it failed itself, and not that it could not be reached. */
export const SERVER_FAULTS: ReadonlySet<codes> = new Set([codes.INTERNAL, codes.UNKNOWN, codes.DATA_LOSS]);

/** The codes after which a new stream can succeed. A connection that is cut in a frame is INTERNAL in gRPC, too. */
export const PASSING: ReadonlySet<codes> = new Set([
  codes.UNAVAILABLE,
  codes.CANCELLED,
  codes.INTERNAL,
  codes.UNKNOWN,
  codes.DEADLINE_EXCEEDED,
]);

/** One bad field: its path in the request (`alert.thresholds[2].value`), and the problem. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** Why a call failed; `TidemarkError` explains the fields. */
export interface Cause {
  readonly code: codes;
  readonly message: string;
  readonly reason?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number | undefined;
  readonly requestId?: string;
}

/** Why a call failed. The code is that of the call, whatever its details contain. */
export function causeOfCall(error: ServiceError): Cause {
  const status = sentStatus(error.metadata);
  const message = error.details || status.message || codes[error.code];
  return causeOf(error.code, message, status, requestId(error.metadata));
}

/** Why a part of a call failed, such as one event of a batch. */
export function causeOfStatus(status: Status): Cause {
  const code = status.code in codes ? (status.code as codes) : codes.UNKNOWN;
  return causeOf(code, status.message || codes[code], status, "");
}

function causeOf(code: codes, message: string, status: Status, requestId: string): Cause {
  const info = detail(status, ErrorInfoSchema);
  const retry = detail(status, RetryInfoSchema)?.retryDelay;
  const bad = detail(status, BadRequestSchema);
  return {
    code,
    message,
    reason: info === undefined ? "" : info.reason.replace(REASON_PREFIX, ""),
    metadata: info?.metadata ?? {},
    violations: (bad?.fieldViolations ?? []).map(({ field, description }) => ({ field, description })),
    retryAfterMs: retry && durationMs(retry),
    requestId,
  };
}

/** The status in the trailing metadata; empty if there is none, or none that can be read. */
function sentStatus(metadata: Metadata | undefined): Status {
  const [content] = metadata?.get(DETAILS_KEY) ?? [];
  if (content instanceof Uint8Array) {
    try {
      return fromBinary(StatusSchema, content);
    } catch {
      // Of a proxy, for example: code and message say enough.
    }
  }
  return create(StatusSchema);
}

function requestId(metadata: Metadata | undefined): string {
  const [value] = metadata?.get(REQUEST_ID_KEY) ?? [];
  return value === undefined ? "" : value.toString();
}

/** The detail of that type; undefined if there is none, or none that can be read. */
function detail<Desc extends DescMessage>(status: Status, schema: Desc): MessageShape<Desc> | undefined {
  for (const any of status.details) {
    try {
      const found = anyUnpack(any, schema);
      if (found !== undefined) return found;
    } catch {
      // The next one may be readable.
    }
  }
  return undefined;
}
