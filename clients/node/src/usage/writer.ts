/** `UsageWriter`: takes events one by one, and sends them in messages, each until it is acknowledged. */

import { setImmediate as nextTurn } from "node:timers/promises";

import type { Connection } from "../connection/connection.js";
import { connectionLost, errorOfCall, TidemarkError } from "../errors/errors.js";
import type { UsageEvent, UsageOutcome } from "../generated/tidemark/v1/usage_pb.js";
import type { Logger } from "../tasks/logger.js";
import { TimeoutError, within } from "../tasks/waiting.js";
import { complete, type Usage, usageEvent } from "./events.js";
import { Lane } from "./lane.js";
import { Ledger } from "./ledger.js";
import { UsageMethods } from "./methods.js";
import { type Settings, settingsOf, type WriterCounts, type WriterOptions } from "./options.js";
import type { Waiting } from "./pending.js";
import { FAREWELL_MS } from "./stream.js";
import { encodeEvent } from "./wire.js";

/** Events after which a caller waits for the event loop: otherwise nothing is sent until memory is full. */
const TURN_EVENTS = 500;

/** An event that a writer has taken. */
export interface Taken {
  /**
   * The outcome of its message, once it is counted; a duplicate counts as counted. Rejects with why it is not
   * counted. A rejection that nothing waits for does not end the program.
   */
  readonly outcome: Promise<UsageOutcome>;
}

/** Sends usage over streams that survive interruptions. The events of a customer keep their order. */
export class UsageWriter {
  readonly #settings: Settings;
  readonly #ledger: Ledger;
  readonly #lanes: readonly Lane[];
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  readonly #sending: Promise<void>;
  #sinceTurn = 0;
  #closed: Promise<void> | undefined;

  /** Throws RangeError where an option is out of its bounds. */
  constructor(connection: Connection, options: WriterOptions = {}) {
    const settings = settingsOf(options, connection.logger);
    this.#settings = settings;
    this.#logger = connection.logger;
    this.#ledger = new Ledger(settings);
    const answers = { includeGauges: settings.includeGauges, maxBytes: settings.maxAnswerBytes };
    const methods = new UsageMethods(connection, answers);
    this.#lanes = Array.from(
      { length: settings.streams },
      () => new Lane(methods, settings, this.#ledger, connection.logger),
    );
    this.#sending = this.#run();
  }

  /** What it has done so far. */
  get counts(): WriterCounts {
    return { ...this.#ledger.counts };
  }

  /**
   * Takes an event, and waits only for room. A message without an id or a time gets them. Throws RangeError for an
   * event that is too large, TypeError for an amount that is not exact, TidemarkError when the writer has failed.
   */
  async send(event: UsageEvent | Usage): Promise<void> {
    const message = messageOf(event);
    const content = encodeEvent(message);
    while (this.#mustWait) await this.#wait();
    this.#add(message, content);
  }

  /** Takes events one after the other, as `send` does. */
  async sendAll(events: Iterable<UsageEvent | Usage> | AsyncIterable<UsageEvent | Usage>): Promise<void> {
    if (Symbol.asyncIterator in events) {
      for await (const event of events) await this.send(event);
      return;
    }
    for (const event of events) {
      const message = messageOf(event);
      const content = encodeEvent(message);
      while (this.#mustWait) await this.#wait();
      this.#add(message, content);
    }
  }

  /** Takes an event as `send` does, and returns what will say whether it is counted. */
  async submit(event: UsageEvent | Usage): Promise<Taken> {
    const message = messageOf(event);
    const content = encodeEvent(message);
    while (this.#mustWait) await this.#wait();
    const outcome = new Promise<UsageOutcome>((resolve, reject) => {
      this.#add(message, content, { resolve, reject });
    });
    outcome.catch(() => {});
    return { outcome };
  }

  /**
   * Waits until every event so far is acknowledged or rejected. Throws TimeoutError, and TidemarkError when it fails.
   */
  async flush(timeoutMs = Infinity): Promise<void> {
    this.#seal();
    await within(timeoutMs, this.#ledger.acknowledged());
  }

  /**
   * Ends the writer, after it waited for acknowledgements; unset: for `closeTimeoutMs`. What is not acknowledged then
   * is lost: throws ConnectionLostError. Throws the error of a writer that has failed.
   */
  close(timeoutMs = this.#settings.closeTimeoutMs): Promise<void> {
    this.#closed ??= this.#close(timeoutMs);
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(timeoutMs: number): Promise<void> {
    this.#seal();
    this.#ledger.close();
    try {
      await within(timeoutMs, this.#ledger.acknowledged());
    } catch (error) {
      if (!(error instanceof TidemarkError || error instanceof TimeoutError)) throw error; // it is thrown below
    }
    for (const lane of this.#lanes) lane.wake();
    const { pending } = this.#ledger.counts;
    if (pending === 0) await within(FAREWELL_MS, this.#sending).catch(() => {}); // streams end by themselves
    this.#stop.abort();
    const error = this.#ledger.error ?? connectionLost(`${pending} usage events are not acknowledged`);
    for (const lane of this.#lanes) lane.fail(error);
    await this.#sending;
    if (this.#ledger.error !== undefined || pending > 0) throw error;
  }

  async #run(): Promise<void> {
    try {
      await Promise.all(this.#lanes.map((lane) => lane.run(this.#stop.signal)));
    } catch (error) {
      if (!(error instanceof TidemarkError)) this.#logger.error(`the usage writer has failed: ${error}`);
      const cause = errorOfCall(error);
      this.#ledger.fail(cause);
      this.#stop.abort();
      for (const lane of this.#lanes) lane.fail(cause);
    }
  }

  /** Takes an event. All events of one customer go over one stream. */
  #add({ customerId }: UsageEvent, content: Uint8Array, waiting?: Waiting): void {
    this.#sinceTurn += 1;
    let hash = 0x811c9dc5;
    for (let at = 0; at < customerId.length; at++) hash = Math.imul(hash ^ customerId.charCodeAt(at), 0x01000193);
    this.#lanes[(hash >>> 0) % this.#lanes.length]?.add(content, waiting);
  }

  #seal(): void {
    for (const lane of this.#lanes) lane.seal();
  }

  get #mustWait(): boolean {
    return this.#sinceTurn >= TURN_EVENTS || !this.#ledger.isOpen;
  }

  /**
   * Waits for the event loop, or for room. Messages that are being filled are sent: what fills memory may be in them.
   */
  async #wait(): Promise<void> {
    if (this.#ledger.isOpen) {
      this.#sinceTurn = 0;
      await nextTurn();
      return;
    }
    this.#seal();
    await this.#ledger.room();
  }
}

function messageOf(event: UsageEvent | Usage): UsageEvent {
  return "$typeName" in event ? complete(event) : usageEvent(event);
}
