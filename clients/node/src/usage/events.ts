/** Usage events: how a program makes them, and the ids of those that have none. */

import { randomBytes } from "node:crypto";

import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";

import { type UsageEvent, UsageEventSchema } from "../generated/tidemark/v1/usage_pb.js";
import { type Time, toTimestamp } from "../times.js";

/** An exact amount: a decimal in a string, a bigint, or a number without a fraction. */
export type Amount = string | number | bigint;

/** One use of a metric, or a raw event with an `eventName`. */
export interface Usage {
  readonly customerId: string;
  readonly metricId?: string;
  readonly quantity?: Amount;
  /** Unset: a new one. Give your own if you may send the event again after a restart, and repeat its time then. */
  readonly eventId?: string;
  /** Unset: now. */
  readonly eventTime?: Time;
  readonly eventName?: string;
  readonly cost?: Amount;
  readonly currency?: string;
  readonly subscriptionId?: string;
  readonly reservationId?: string;
  readonly properties?: Readonly<Record<string, string>>;
}

// Ids that no other process makes: 96 random bits, and a number.
const ID_PREFIX = randomBytes(12).toString("hex");
let idCount = 0;

/**
 * The message of an event, with an id and a time. Throws TypeError for an amount that is not exact, RangeError for a
 * time that is none. All else is the server's to check: it rejects the event alone.
 */
export function usageEvent(usage: Usage): UsageEvent {
  const event = create(UsageEventSchema);
  event.eventId = usage.eventId ?? "";
  event.customerId = usage.customerId;
  event.subscriptionId = usage.subscriptionId ?? "";
  event.metricId = usage.metricId ?? "";
  event.quantity = amount(usage.quantity, "quantity");
  event.cost = amount(usage.cost, "cost");
  event.currency = usage.currency ?? "";
  event.eventName = usage.eventName ?? "";
  event.reservationId = usage.reservationId ?? "";
  event.properties = { ...usage.properties };
  if (usage.eventTime !== undefined) event.eventTime = toTimestamp(usage.eventTime);
  return complete(event);
}

/** Gives an event without an id or a time these, in the message itself, so that a repetition has the same ones. */
export function complete(event: UsageEvent): UsageEvent {
  if (!event.eventId) event.eventId = `${ID_PREFIX}-${(++idCount).toString(16)}`;
  event.eventTime ??= timestampNow();
  return event;
}

/** An amount in the form of the contract; empty for undefined. Throws TypeError for one that is not exact. */
export function amount(value: Amount | undefined, name: string): string {
  if (value === undefined) return "";
  if (typeof value === "string") return value;
  if (typeof value === "bigint" || Number.isSafeInteger(value)) return value.toString();
  throw new TypeError(
    `${name} is ${value}: write a decimal in a string ("0.1"), which is exact; a number may be rounded`,
  );
}
