/** Times and durations of the contract. A `Date` has milliseconds only; the service keeps microseconds. */

import { create, fromJson, toJson } from "@bufbuild/protobuf";
import {
  type Duration,
  DurationSchema,
  type Timestamp,
  TimestampSchema,
  timestampFromDate,
} from "@bufbuild/protobuf/wkt";

/** A time: a `Date`, a text in the form of RFC 3339 with up to nine digits of a second, or a message. */
export type Time = Date | string | Timestamp;

/** The time as a message, exactly. Throws RangeError for a text or a Date that is no time. */
export function toTimestamp(time: Time): Timestamp {
  if (typeof time === "string") {
    try {
      return fromJson(TimestampSchema, time);
    } catch (error) {
      throw new RangeError(
        `${JSON.stringify(time)} is no time: write RFC 3339, such as 2026-03-15T12:00:00.000001Z`,
        {
          cause: error,
        },
      );
    }
  }
  if (!(time instanceof Date)) return time;
  if (Number.isNaN(time.getTime())) throw new RangeError("the Date is no time");
  return timestampFromDate(time);
}

/** The time as a text in the form of RFC 3339, with all digits that it has. */
export function timestampText(time: Timestamp): string {
  return toJson(TimestampSchema, time) as string;
}

/** Milliseconds as a message. */
export function toDuration(milliseconds: number): Duration {
  const seconds = Math.floor(milliseconds / 1_000);
  return create(DurationSchema, {
    seconds: BigInt(seconds),
    nanos: Math.round((milliseconds - seconds * 1_000) * 1e6),
  });
}

/** A duration in milliseconds. */
export function durationMs(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}
