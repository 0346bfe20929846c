/**
 * Encodes usage events about five times as fast as `toBinary`, which looks at each field of the description for each
 * event.
 *
 * The fields come from the description, too, so a field that is added to the contract is never left out: an event
 * that has anything but texts, a map of texts and times is encoded by `toBinary`, and so is one that is large or
 * wrong.
 */

import { type DescField, ScalarType, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

import { type UsageEvent, UsageEventSchema } from "../generated/tidemark/v1/usage_pb.js";

const TEXT = 0;
const TEXTS = 1;
const TIME = 2;
const LENGTH_DELIMITED = 2;
const MOST_BYTES = 64 * 1024;
/** Of a character of JavaScript in UTF-8. */
const BYTES_OF_CHARACTER = 3;
/** A tag and lengths, of a field with a field in it. */
const OVERHEAD = 16;

interface Field {
  readonly name: keyof UsageEvent;
  readonly tag: number;
  readonly kind: number;
}

/** The fields in their order; undefined: there is one of another kind. */
const FIELDS = known(UsageEventSchema.fields);

/** Where an event is put together before it is copied: one at a time, in one thread. */
const scratch = Buffer.allocUnsafe(MOST_BYTES);

/** The event in the form of the wire. Throws what `toBinary` throws. */
export function eventBytes(event: UsageEvent): Uint8Array {
  const end = FIELDS === undefined || event.$unknown?.length ? -1 : written(event, FIELDS);
  return end < 0 ? toBinary(UsageEventSchema, event) : Buffer.from(scratch.subarray(0, end));
}

function known(fields: readonly DescField[]): readonly Field[] | undefined {
  const found: Field[] = [];
  for (const field of [...fields].sort((one, other) => one.number - other.number)) {
    const kind = kindOf(field);
    if (kind === undefined || field.number > 15) return undefined; // then the tag would have two bytes
    found.push({ name: field.localName as keyof UsageEvent, tag: (field.number << 3) | LENGTH_DELIMITED, kind });
  }
  return found;
}

function kindOf(field: DescField): number | undefined {
  if (field.oneof !== undefined) return undefined;
  if (field.fieldKind === "scalar" && field.scalar === ScalarType.STRING) return TEXT;
  if (field.fieldKind === "message" && field.message.typeName === TimestampSchema.typeName) return TIME;
  const isOfTexts =
    field.fieldKind === "map" && field.mapKey === ScalarType.STRING && field.scalar === ScalarType.STRING;
  return isOfTexts ? TEXTS : undefined;
}

/** Writes the event; returns where it ends, or -1 if it must be encoded in another way. */
function written(event: UsageEvent, fields: readonly Field[]): number {
  let at = 0;
  for (const { name, tag, kind } of fields) {
    const value = event[name];
    if (value === "" || value === undefined) continue;
    if (kind === TEXT) at = text(at, tag, value);
    else if (kind === TIME) at = time(at, tag, value as Timestamp);
    else at = texts(at, tag, value as Record<string, string>);
    if (at < 0) return -1;
  }
  return at;
}

function text(at: number, tag: number, value: unknown): number {
  if (typeof value !== "string") return -1;
  if (at + value.length * BYTES_OF_CHARACTER + OVERHEAD > MOST_BYTES) return -1;
  scratch[at] = tag;
  const length = scratch.write(value, at + 2);
  return delimited(at + 1, length);
}

function texts(at: number, tag: number, values: Record<string, string>): number {
  for (const [key, value] of Object.entries(values)) {
    const inner = text(at + 2, (1 << 3) | LENGTH_DELIMITED, key);
    const end = inner < 0 ? inner : text(inner, (2 << 3) | LENGTH_DELIMITED, value);
    if (end < 0) return -1;
    scratch[at] = tag;
    at = delimited(at + 1, end - at - 2);
  }
  return at;
}

function time(at: number, tag: number, { seconds, nanos }: Timestamp): number {
  if (seconds < 0n || nanos < 0 || at + 2 * OVERHEAD > MOST_BYTES) return -1;
  scratch[at] = tag;
  let end = at + 2;
  if (seconds > 0n) {
    scratch[end] = 1 << 3;
    end = varint(end + 1, Number(seconds));
  }
  if (nanos > 0) {
    scratch[end] = 2 << 3;
    end = varint(end + 1, nanos);
  }
  return delimited(at + 1, end - at - 2);
}

/** Writes the length of what stands after one byte for it; moves that where the length needs more. */
function delimited(at: number, length: number): number {
  if (length < 0x80) {
    scratch[at] = length;
    return at + 1 + length;
  }
  const size = length < 0x4000 ? 2 : 3;
  scratch.copyWithin(at + size, at + 1, at + 1 + length);
  return varint(at, length) + length;
}

/** Writes a number of protobuf: seven bits in each byte, the lowest first. */
function varint(at: number, value: number): number {
  for (; value > 0x7f; value = Math.floor(value / 0x80)) scratch[at++] = (value & 0x7f) | 0x80;
  scratch[at++] = value;
  return at;
}
