/**
 * Requests with usage, in the form of the wire.
 *
 * An event is encoded once, when it is taken. A request is put together from encoded events, and so is each
 * repetition.
 */

import type { UsageEvent } from "../generated/tidemark/v1/usage_pb.js";
import { eventBytes } from "./encoding.js";

/** Of one message, as the contract says. */
export const MAX_BATCH_EVENTS = 5_000;
/** Of one message; a server accepts 4 MiB by default. */
export const MAX_BATCH_BYTES = 2 * 1024 * 1024;
/** Of one event; the contract's bounds allow about 30 KiB. */
const MAX_EVENT_BYTES = 1024 * 1024;

// Tags: number and kind of the fields of EvaluateUsageRequest, EvaluateUsageBatchRequest and UsageBatch.
const BATCH = 0x0a; // 1, with a length
const BATCH_ID = 0x0a; // 1, with a length
const EVENT = 0x12; // 2, with a length
const INCLUDE_GAUGES = [0x18, 1]; // 3, true
const MAX_ANSWER_BYTES = 0x20; // 4, a number

/** What answers contain, as in UsageBatch. maxBytes: 0: 2 MiB. */
export interface AnswerOptions {
  readonly includeGauges: boolean;
  readonly maxBytes: number;
}

/** An event in the form of the wire. Throws RangeError for one that no server takes, because of its size. */
export function encodeEvent(event: UsageEvent): Uint8Array {
  const content = eventBytes(event);
  if (content.length > MAX_EVENT_BYTES) {
    throw new RangeError(`the event ${event.eventId.slice(0, 128)} is larger than ${MAX_EVENT_BYTES} bytes`);
  }
  return content;
}

/** An EvaluateUsageRequest, or an EvaluateUsageBatchRequest, which has the same form. */
export function encodeRequest(batchId: string, events: readonly Uint8Array[], options: AnswerOptions): Buffer {
  const name = Buffer.from(batchId);
  let size = name.length && 1 + varintSize(name.length) + name.length;
  for (const event of events) size += 1 + varintSize(event.length) + event.length;
  if (options.includeGauges) size += INCLUDE_GAUGES.length;
  if (options.maxBytes) size += 1 + varintSize(options.maxBytes);

  const request = Buffer.allocUnsafe(1 + varintSize(size) + size);
  let at = 0;
  const number = (value: number): void => {
    for (; value > 0x7f; value = Math.floor(value / 0x80)) request[at++] = (value & 0x7f) | 0x80;
    request[at++] = value;
  };
  const field = (tag: number, content: Uint8Array): void => {
    request[at++] = tag;
    number(content.length);
    request.set(content, at);
    at += content.length;
  };
  request[at++] = BATCH;
  number(size);
  if (name.length) field(BATCH_ID, name);
  for (const event of events) field(EVENT, event);
  if (options.includeGauges) for (const byte of INCLUDE_GAUGES) request[at++] = byte;
  if (options.maxBytes) {
    request[at++] = MAX_ANSWER_BYTES;
    number(options.maxBytes);
  }
  return request;
}

/** The bytes of a number of protobuf: seven bits in each. */
function varintSize(value: number): number {
  let size = 1;
  for (; value > 0x7f; value = Math.floor(value / 0x80)) size += 1;
  return size;
}
