/** Client of Tidemark. `tidemark-client/v1` has the messages and enums of the contract. */

export { type CallOptions, Client, connect } from "./client.js";
export type { ServiceClient } from "./connection/service.js";
export type { ClientOptions, Pem, Tls } from "./connection/target.js";
export { CachedChecks, type CheckOptions } from "./enforcement/checks.js";
export { Guard, type GuardOptions, type WantedUsage } from "./enforcement/guard.js";
export { Hold, type Used } from "./enforcement/hold.js";
export {
  AbortedError,
  AlreadyExistsError,
  CancelledError,
  ConnectionLostError,
  DataLossError,
  DeadlineExceededError,
  FailedPreconditionError,
  InternalError,
  InvalidArgumentError,
  NotFoundError,
  OutOfRangeError,
  PermissionDeniedError,
  ResourceExhaustedError,
  TidemarkError,
  UnauthenticatedError,
  UnavailableError,
  UnimplementedError,
  UnknownError,
} from "./errors/errors.js";
export type { FieldViolation } from "./errors/status.js";
export { VERSION } from "./generated/version.js";
export type { Logger } from "./tasks/logger.js";
export { TimeoutError } from "./tasks/waiting.js";
export { durationMs, type Time, timestampText, toDuration, toTimestamp } from "./times.js";
export { type Amount, type Usage, usageEvent } from "./usage/events.js";
export type { WriterCounts, WriterOptions } from "./usage/options.js";
export { type Taken, UsageWriter } from "./usage/writer.js";
export { FileTokens, MemoryTokens, type TokenStore } from "./watch/tokens.js";
export { type Position, Watcher, type WatchOptions } from "./watch/watcher.js";
export { parseEvent, type ReportedTransition, type WebhookEvent } from "./webhooks/event.js";
export { type RequestHeaders, WebhookNotVerifiedError, WebhookVerifier } from "./webhooks/verification.js";
