/** What a writer has taken, what of it is in memory, and who waits for room or for acknowledgements. */

import type { TidemarkError } from "../errors/errors.js";
import { Changes } from "../tasks/waiting.js";
import type { Settings, WriterCounts } from "./options.js";

/** What Node needs for an event beside its content, in bytes. */
const EVENT_OVERHEAD = 128;

/** The events of a writer. */
export class Ledger {
  /** What the writer has done. */
  readonly counts: { -readonly [Name in keyof WriterCounts]: number } = {
    acknowledged: 0,
    duplicates: 0,
    rejected: 0,
    pending: 0,
    resent: 0,
  };
  /** Why the writer has failed. */
  error: TidemarkError | undefined;
  /** No further event is taken. */
  isClosing = false;
  #bytes = 0;
  #taken = 0;
  #finished = 0;
  readonly #changes = new Changes();
  readonly #maxEvents: number;
  readonly #maxBytes: number;

  constructor(settings: Settings) {
    this.#maxEvents = settings.maxPendingEvents;
    this.#maxBytes = settings.maxPendingBytes;
  }

  /** Whether an event can be taken without waiting. */
  get isOpen(): boolean {
    return !this.#isFull && !this.isClosing && this.error === undefined;
  }

  get #isFull(): boolean {
    return this.#bytes >= this.#maxBytes || this.counts.pending >= this.#maxEvents;
  }

  /** An event, in memory. */
  take(bytes: number): void {
    this.#taken += 1;
    this.#bytes += bytes + EVENT_OVERHEAD;
    this.counts.pending += 1;
  }

  /** Events that are acknowledged or rejected. */
  finish(events: number, bytes: number): void {
    this.#finished += events;
    this.#bytes -= bytes + events * EVENT_OVERHEAD;
    this.counts.pending -= events;
    this.#changes.note();
  }

  /** The writer takes no further events. */
  fail(error: TidemarkError): void {
    this.error = error;
    this.#changes.note();
  }

  /** No further event is taken. */
  close(): void {
    this.isClosing = true;
    this.#changes.note();
  }

  /** Waits until there is room for one more event. Throws when there will never be. */
  async room(): Promise<void> {
    for (;;) {
      if (this.error !== undefined) throw this.error;
      if (this.isClosing) throw new Error("the usage writer is closed");
      if (!this.#isFull) return;
      await this.#changes.next();
    }
  }

  /** Waits until every event that was taken so far is acknowledged or rejected. Throws when the writer fails. */
  async acknowledged(): Promise<void> {
    const taken = this.#taken;
    while (this.#finished < taken) {
      if (this.error !== undefined) throw this.error;
      await this.#changes.next();
    }
  }
}
