/** The errors: a class for each status code of gRPC, below one for all of them. */

import { type ServiceError, status as codes } from "@grpc/grpc-js";

import type { Status } from "../generated/google/rpc/status_pb.js";
import { type Cause, causeOfCall, causeOfStatus, type FieldViolation } from "./status.js";

/** A call that failed. Its message is a sentence for people; the other properties are for programs. */
export class TidemarkError extends Error {
  /** The status code of gRPC, a number: `status.NOT_FOUND` of `@grpc/grpc-js`. */
  readonly code: codes;
  /** Its name, such as NOT_FOUND. */
  readonly codeName: string;
  /** The message of the server. */
  readonly details: string;
  /** Why it failed, a name of `ErrorReason` such as ALERT_NOT_FOUND; empty if no server of Tidemark answered. */
  readonly reason: string;
  /** What belongs to the reason, such as the id that was not found. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The bad fields of the request; all of them are here. */
  readonly violations: readonly FieldViolation[];
  /** The milliseconds after which the server asks for a new try; undefined if it does not ask for one. */
  readonly retryAfterMs: number | undefined;
  /** The id of the call in the logs of the server; empty if no server answered. */
  readonly requestId: string;

  constructor(cause: Cause, original?: unknown) {
    super(sentence(cause), original === undefined ? undefined : { cause: original });
    this.name = new.target.name;
    this.code = cause.code;
    this.codeName = codes[cause.code];
    this.details = cause.message;
    this.reason = cause.reason ?? "";
    this.metadata = cause.metadata ?? {};
    this.violations = cause.violations ?? [];
    this.retryAfterMs = cause.retryAfterMs;
    this.requestId = cause.requestId ?? "";
  }
}

function sentence({ code, message, reason, violations = [], requestId }: Cause): string {
  // The message of a bad request already has the first of the violations.
  const others = violations.filter((one) => !message.includes(one.description));
  const parts = [message, ...others.map((one) => `${one.field}: ${one.description}`)];
  return `${parts.join("; ")} [${reason || codes[code]}]${requestId ? ` (request ${requestId})` : ""}`;
}

/** The call was cancelled, or the client was closed. */
export class CancelledError extends TidemarkError {}

/** The cause is not known; a proxy may have answered. */
export class UnknownError extends TidemarkError {}

/** The request is wrong, whatever the state of the server: `violations` names the fields. */
export class InvalidArgumentError extends TidemarkError {}

/** There was no answer in time. What was asked for may be done all the same. */
export class DeadlineExceededError extends TidemarkError {}

/** Something that the request names does not exist. */
export class NotFoundError extends TidemarkError {}

/** What the request creates exists already, or its id was used with another content. */
export class AlreadyExistsError extends TidemarkError {}

/** The key may not do this: its roles do not allow the method, or it is limited to another customer. */
export class PermissionDeniedError extends TidemarkError {}

/** A quota or a share is used up. `retryAfterMs` says when a new try can succeed. */
export class ResourceExhaustedError extends TidemarkError {}

/** The state of something that the request names does not allow this. */
export class FailedPreconditionError extends TidemarkError {}

/** Another change came first: read again, and repeat. */
export class AbortedError extends TidemarkError {}

/** A value is outside of what exists. */
export class OutOfRangeError extends TidemarkError {}

/** The server does not know the method: it may be older than this client. */
export class UnimplementedError extends TidemarkError {}

/** The server failed; its logs have the cause under `requestId`. */
export class InternalError extends TidemarkError {}

/** No server answers, or it cannot answer now. A new try can succeed. */
export class UnavailableError extends TidemarkError {}

/** No server answered in all the time that a writer may try. */
export class ConnectionLostError extends UnavailableError {}

/** Data was damaged. */
export class DataLossError extends TidemarkError {}

/** The server does not know the API key or the certificate, or there is none. */
export class UnauthenticatedError extends TidemarkError {}

const CLASSES: Readonly<Record<number, new (cause: Cause, original?: unknown) => TidemarkError>> = {
  [codes.CANCELLED]: CancelledError,
  [codes.UNKNOWN]: UnknownError,
  [codes.INVALID_ARGUMENT]: InvalidArgumentError,
  [codes.DEADLINE_EXCEEDED]: DeadlineExceededError,
  [codes.NOT_FOUND]: NotFoundError,
  [codes.ALREADY_EXISTS]: AlreadyExistsError,
  [codes.PERMISSION_DENIED]: PermissionDeniedError,
  [codes.RESOURCE_EXHAUSTED]: ResourceExhaustedError,
  [codes.FAILED_PRECONDITION]: FailedPreconditionError,
  [codes.ABORTED]: AbortedError,
  [codes.OUT_OF_RANGE]: OutOfRangeError,
  [codes.UNIMPLEMENTED]: UnimplementedError,
  [codes.INTERNAL]: InternalError,
  [codes.UNAVAILABLE]: UnavailableError,
  [codes.DATA_LOSS]: DataLossError,
  [codes.UNAUTHENTICATED]: UnauthenticatedError,
};

/** The error for what a call of gRPC failed with. */
export function errorOfCall(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  if (error instanceof Error && "code" in error && "details" in error) {
    const cause = causeOfCall(error as ServiceError);
    return new (CLASSES[cause.code] ?? UnknownError)(cause, error);
  }
  return new UnknownError({ code: codes.UNKNOWN, message: String(error) }, error);
}

/** The error for a `google.rpc.Status` within an answer, such as that of a rejected event. */
export function errorOfStatus(status: Status): TidemarkError {
  const cause = causeOfStatus(status);
  return new (CLASSES[cause.code] ?? UnknownError)(cause);
}

/** The error of a writer that no server answers. */
export function connectionLost(message: string): ConnectionLostError {
  return new ConnectionLostError({ code: codes.UNAVAILABLE, message });
}

/** The error of a call over a connection that was closed. */
export function clientClosed(): CancelledError {
  return new CancelledError({ code: codes.CANCELLED, message: "the client was closed" });
}
