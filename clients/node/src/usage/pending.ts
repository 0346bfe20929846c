/** One message of a writer: it is being filled, or waits for its acknowledgement. */

import type { UsageOutcome } from "../generated/tidemark/v1/usage_pb.js";

/** What waits for the answer to one event. */
export interface Waiting {
  resolve(outcome: UsageOutcome): void;
  reject(error: Error): void;
}

let count = 0;

/** One message. */
export class Pending {
  readonly batchId = `w${++count}`;
  readonly events: Uint8Array[] = [];
  /** What waits for events, by their index. */
  readonly waiting = new Map<number, Waiting>();
  /** Bytes of the events. */
  size = 0;

  /** tries: how often the server failed to record these events. */
  constructor(readonly tries = 0) {}

  /** Adds an encoded event. */
  add(content: Uint8Array, waiting: Waiting | undefined): void {
    if (waiting !== undefined) this.waiting.set(this.events.length, waiting);
    this.events.push(content);
    this.size += content.length;
  }
}
