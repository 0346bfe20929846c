/** How a usage writer works: sizes, times, bounds, and the functions that it calls. */

import type { TidemarkError } from "../errors/errors.js";
import type { Transition } from "../generated/tidemark/v1/transition_pb.js";
import type { UsageEvent, UsageOutcome } from "../generated/tidemark/v1/usage_pb.js";
import type { Logger } from "../tasks/logger.js";
import { MAX_BATCH_BYTES, MAX_BATCH_EVENTS } from "./wire.js";

/** How a usage writer works. The functions must be short: the writer waits for them. An error in one is logged. */
export interface WriterOptions {
  /** Of one message; unset: 500. */
  readonly maxBatchEvents?: number;
  /** Of one message; unset: 512 KiB. */
  readonly maxBatchBytes?: number;
  /** How long an event waits for others of its message; unset: 10. */
  readonly lingerMs?: number;
  /** In memory, not acknowledged; beyond, the writer makes its caller wait; unset: 100,000. */
  readonly maxPendingEvents?: number;
  /** The same in bytes; unset: 64 MiB. */
  readonly maxPendingBytes?: number;
  /** Over which usage is sent; all events of one customer go over the same; unset: 4. */
  readonly streams?: number;
  /** Messages of one stream that are sent and not yet answered; unset: 8. */
  readonly inFlight?: number;
  /** Without an answer, after which the writer fails; unset: it never gives up. */
  readonly patienceMs?: number;
  /** How long closing waits for acknowledgements; unset: 30,000. */
  readonly closeTimeoutMs?: number;
  /** As in UsageBatch; unset: false. */
  readonly includeGauges?: boolean;
  /** As in UsageBatch; unset: 16 MiB. */
  readonly maxAnswerBytes?: number;
  /** Gets each threshold that was reached or resolved. */
  readonly onCrossing?: (transition: Transition) => void;
  /** Gets the answer to each message. */
  readonly onOutcome?: (outcome: UsageOutcome) => void;
  /** Gets each event that the server does not count, unless it was submitted; unset: it is logged. */
  readonly onRejected?: (event: UsageEvent, error: TidemarkError) => void;
  /** Gets a sentence whenever a stream broke; unset: it is logged. */
  readonly onInterruption?: (sentence: string) => void;
}

/** What a writer has done. */
export interface WriterCounts {
  /** Counted by the server, now or before; duplicates are among them. */
  readonly acknowledged: number;
  readonly duplicates: number;
  readonly rejected: number;
  /** Taken, and neither acknowledged nor rejected. */
  readonly pending: number;
  /** Sent again after interruptions. */
  readonly resent: number;
}

/** The options with the values of those that are unset. */
export type Settings = Required<Omit<WriterOptions, "onCrossing" | "onOutcome">> &
  Pick<WriterOptions, "onCrossing" | "onOutcome">;

/** Throws RangeError for a value out of its bounds. */
export function settingsOf(options: WriterOptions, logger: Logger): Settings {
  const settings: Settings = {
    maxBatchEvents: 500,
    maxBatchBytes: MAX_BATCH_BYTES / 4,
    lingerMs: 10,
    maxPendingEvents: 100_000,
    maxPendingBytes: 64 * 1024 * 1024,
    streams: 4,
    inFlight: 8,
    patienceMs: Infinity,
    closeTimeoutMs: 30_000,
    includeGauges: false,
    maxAnswerBytes: 16 * 1024 * 1024,
    onRejected: ({ eventId, customerId }, error) =>
      logger.error(`usage event ${eventId} of ${customerId} was rejected: ${error.message}`),
    onInterruption: (sentence) => logger.warn(`usage is not acknowledged now, and will be sent again: ${sentence}`),
    ...options,
  };
  bounded(settings, "maxBatchEvents", 1, MAX_BATCH_EVENTS);
  bounded(settings, "maxBatchBytes", 1, MAX_BATCH_BYTES);
  bounded(settings, "maxPendingEvents", 1);
  bounded(settings, "maxPendingBytes", 1);
  bounded(settings, "inFlight", 1, 64);
  bounded(settings, "streams", 1, 64);
  bounded(settings, "lingerMs", 0);
  bounded(settings, "patienceMs", 0);
  bounded(settings, "closeTimeoutMs", 0);
  return settings;
}

function bounded(settings: Settings, name: keyof Settings, least: number, most = Infinity): void {
  const value = settings[name];
  if (typeof value === "number" && value >= least && value <= most) return;
  throw new RangeError(`${name} is ${value}: it is at least ${least}${most === Infinity ? "" : `, at most ${most}`}`);
}
