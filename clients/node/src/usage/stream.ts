/**
 * A client of EvaluateUsage that loses no message: it keeps each one until the server acknowledges it.
 *
 * Several messages are in flight at once. When the connection breaks or the server drains, it opens a new stream and
 * sends the unacknowledged messages again, unchanged and in order. The server counts no event twice.
 */

import { setTimeout as sleep } from "node:timers/promises";

import { status as codes } from "@grpc/grpc-js";

import { connectionLost, TidemarkError, UnknownError } from "../errors/errors.js";
import { PASSING, SERVER_FAULTS } from "../errors/status.js";
import type { EvaluateUsageResponse } from "../generated/tidemark/v1/alert_service_pb.js";
import type { UsageOutcome } from "../generated/tidemark/v1/usage_pb.js";
import { Backoff } from "../tasks/backoff.js";
import { type End, type Messages, UsageCall } from "./call.js";
import { sendInParts } from "./isolation.js";
import type { Message, UsageMethods } from "./methods.js";

/** Twice the interval of heartbeats. */
const SILENCE_MS = 60_000;
export const FAREWELL_MS = 2_000;
/** That a server may ask the client to wait. */
const LONGEST_DELAY_MS = 60_000;
/** Streams in a row that may end with a fault of the server over the same message. */
const MAX_FAULTS = 3;

/** Where messages come from, and where their answers go. */
export interface Source<M extends Message> {
  /** The next new message; undefined: there is none now. */
  next(): M | undefined;
  /** No further message will come. */
  readonly isEnded: boolean;
  /** The answer to a message. isFinal: the message was sent in parts, and its rejections will not change. */
  acknowledge(message: M, outcome: UsageOutcome, isFinal: boolean): void;
  /** A stream broke. */
  interrupted(sentence: string): void;
  /** Events were sent again. */
  resent(events: number): void;
}

/** Times, in milliseconds, that tests make short. */
export interface StreamTimes {
  readonly silenceMs: number;
  readonly farewellMs: number;
}

/** Sends the messages of a source. window: of them in flight at once. patienceMs: without an answer. */
export class UsageStream<M extends Message> implements Messages {
  readonly unacknowledged: M[] = [];
  readonly #backoff = new Backoff();
  #call: UsageCall | undefined;
  #aliveAt = 0;
  #acknowledgements = 0;

  constructor(
    private readonly methods: UsageMethods,
    private readonly source: Source<M>,
    private readonly window: number,
    private readonly patienceMs: number,
    private readonly times: StreamTimes = { silenceMs: SILENCE_MS, farewellMs: FAREWELL_MS },
  ) {}

  /** Whether every message of the source is acknowledged. */
  get isComplete(): boolean {
    return this.source.isEnded && this.unacknowledged.length === 0;
  }

  /** Takes one more message from the source, if the window has room. */
  take(): M | undefined {
    if (this.unacknowledged.length >= this.window) return undefined;
    const message = this.source.next();
    if (message !== undefined) this.unacknowledged.push(message);
    return message;
  }

  /** The answer to the oldest message. */
  acknowledge({ outcome }: EvaluateUsageResponse): void {
    const [message] = this.unacknowledged;
    if (message === undefined || outcome?.batchId !== message.batchId) {
      const sentence = `the server answered message "${outcome?.batchId}" instead of "${message?.batchId}"`;
      throw new UnknownError({ code: codes.UNKNOWN, message: sentence });
    }
    this.#finish(message, outcome, false);
  }

  noteAlive(): void {
    this.#aliveAt = performance.now();
  }

  /** Looks whether there is something to send, or an end. */
  wake(): void {
    this.#call?.pump();
  }

  /**
   * Opens one stream after another until every message is acknowledged. Throws ConnectionLostError, or another
   * TidemarkError if a new stream would fail in the same way. Returns early where the signal is aborted.
   */
  async run(signal: AbortSignal): Promise<void> {
    this.noteAlive();
    let faults = 0; // streams in a row that ended with a fault of the server, and without an acknowledgement
    while (!signal.aborted) {
      const aliveAt = this.#aliveAt;
      const acknowledgements = this.#acknowledgements;
      const { error, broken } = await this.#sendOverOneStream(signal);
      if (signal.aborted) return;
      if (error === undefined && broken === undefined && this.isComplete) return;
      const isFault = error !== undefined && SERVER_FAULTS.has(error.code);
      faults = !isFault ? 0 : this.#acknowledgements === acknowledgements ? faults + 1 : 1;
      const sentence = error?.details ?? broken ?? "the server is shutting down or restarting";
      if (faults >= MAX_FAULTS && this.unacknowledged.length > 0) {
        // One event may be the cause. Sent again without end, its message would hold up all later ones.
        this.source.interrupted(`${sentence}; searching the message for the event that causes it`);
        if (await this.#isolate(signal)) {
          faults = 0;
          this.#backoff.reset();
          continue;
        }
      }
      await this.#pause(sentence, error?.retryAfterMs ?? 0, this.#aliveAt > aliveAt, signal);
    }
  }

  async #sendOverOneStream(signal: AbortSignal): Promise<End> {
    const call = new UsageCall(this, this.methods, this.times.silenceMs, this.times.farewellMs);
    this.#call = call;
    try {
      const end = await call.run(signal);
      if (end.error && !isPassing(end.error) && !signal.aborted) throw end.error;
      return end;
    } finally {
      this.#call = undefined;
      this.source.resent(call.resent);
    }
  }

  /** Waits before the next stream. Throws ConnectionLostError when the patience is used up. */
  async #pause(sentence: string, delayMs: number, hasBeenAlive: boolean, signal: AbortSignal): Promise<void> {
    if (hasBeenAlive) {
      // The patience begins now: a stream that fell silent has used up as much time already.
      this.noteAlive();
      this.#backoff.reset();
    } else if (performance.now() - this.#aliveAt > this.patienceMs) {
      throw connectionLost(sentence);
    }
    this.source.interrupted(sentence);
    // The server's delay can only lengthen the pause: a server that always asks for 0 would cause a busy loop.
    const longest = Math.min(LONGEST_DELAY_MS, this.patienceMs);
    const pause = Math.max(Math.min(delayMs, longest), this.#backoff.next());
    await sleep(pause, undefined, { signal }).catch(() => {}); // only an abort can end it early
  }

  /**
   * Sends the oldest message in parts, so that an event with which the server fails is rejected alone. False, and the
   * message stays unacknowledged, when the server does not answer or fails with every event. Throws TidemarkError if
   * a new try would fail in the same way.
   */
  async #isolate(signal: AbortSignal): Promise<boolean> {
    const [message] = this.unacknowledged;
    if (message === undefined) return true;
    try {
      const outcome = await sendInParts(this.methods, message, signal, (events) => this.source.resent(events));
      this.#finish(message, outcome, true);
      return true;
    } catch (error) {
      if (signal.aborted || (error instanceof TidemarkError && isPassing(error))) return false;
      throw error;
    }
  }

  #finish(message: M, outcome: UsageOutcome, isFinal: boolean): void {
    this.unacknowledged.shift();
    this.#acknowledgements += 1;
    this.noteAlive();
    this.source.acknowledge(message, outcome, isFinal);
  }
}

function isPassing(error: TidemarkError): boolean {
  return PASSING.has(error.code) || error.code === codes.ABORTED || error.retryAfterMs !== undefined;
}
