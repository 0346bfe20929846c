/** `WebhookVerifier`: checks the signature and the time of a request, after Standard Webhooks 1.0.0. */

import { createHmac, createPublicKey, type KeyObject, timingSafeEqual, verify } from "node:crypto";

import { type Time, toTimestamp } from "../times.js";
import { parseEvent, type WebhookEvent } from "./event.js";

const TOLERANCE_MS = 5 * 60 * 1_000;
const SECRET_PREFIX = "whsec_";
const PUBLIC_KEY_PREFIX = "whpk_";
const ID = "webhook-id";
const TIMESTAMP = "webhook-timestamp";
const SIGNATURE = "webhook-signature";
const PUBLIC_KEY_BYTES = 32;
/** What stands before the bytes of an Ed25519 key in the form that Node reads (SubjectPublicKeyInfo). */
const ED25519_HEADER = Buffer.from("302a300506032b6570032100", "hex");
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The headers of a request, as `node:http`, `fetch` and most frameworks have them. */
export type RequestHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

/** The request is not from Tidemark, was changed, or is too old; the message says which check failed. */
export class WebhookNotVerifiedError extends Error {
  override name = "WebhookNotVerifiedError";
}

/** Verifies requests with any of several keys: more than one while a secret is rotated. */
export class WebhookVerifier {
  readonly #secrets: Buffer[] = [];
  readonly #publicKeys: KeyObject[] = [];
  readonly #toleranceMs: number;

  /**
   * keys: `whsec_…` of endpoints with the scheme v1, `whpk_…` of those with v1a. toleranceMs: how far the time of a
   * request may be from now; unset: 5 minutes. Throws RangeError for a key that is none; the message has nothing of
   * it.
   */
  constructor(keys: string | readonly string[], options: { readonly toleranceMs?: number } = {}) {
    this.#toleranceMs = options.toleranceMs ?? TOLERANCE_MS;
    for (const key of typeof keys === "string" ? [keys] : keys) this.#trust(key);
    if (this.#secrets.length + this.#publicKeys.length === 0)
      throw new RangeError("a verifier needs at least one key");
  }

  /**
   * What the request reports. headers: with names in any case. body: the bytes that arrived, or their text, before
   * anything has parsed them. time: unset: now. Throws WebhookNotVerifiedError.
   */
  verify(headers: RequestHeaders, body: Uint8Array | string, time: Time = new Date()): WebhookEvent {
    const [id, timestamp, signatures] = [ID, TIMESTAMP, SIGNATURE].map((name) => header(headers, name));
    if (!id || !timestamp || !signatures) {
      throw new WebhookNotVerifiedError(`a header is missing: ${ID}, ${TIMESTAMP} and ${SIGNATURE} are needed`);
    }
    if (!/^[0-9]{1,12}$/.test(timestamp)) throw new WebhookNotVerifiedError(`${TIMESTAMP} is no number of seconds`);
    const { seconds, nanos } = toTimestamp(time);
    const awayMs = Math.abs((Number(timestamp) - Number(seconds)) * 1_000 - nanos / 1e6);
    if (awayMs > this.#toleranceMs) {
      throw new WebhookNotVerifiedError(`${TIMESTAMP} is ${(awayMs / 1_000).toFixed(0)} seconds away from now`);
    }
    const content = typeof body === "string" ? Buffer.from(body) : body;
    const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), content]);
    if (!signatures.split(" ").some((signature) => this.#fits(signature, signed))) {
      throw new WebhookNotVerifiedError("no signature fits: the secret is another one, or the body was changed");
    }
    try {
      return parseEvent(id, new TextDecoder("utf-8", { fatal: true }).decode(content));
    } catch (error) {
      const cause = error instanceof Error ? error.message : error;
      throw new WebhookNotVerifiedError(`the body is no event: ${cause}`, { cause: error });
    }
  }

  #trust(key: string): void {
    if (key.startsWith(SECRET_PREFIX)) {
      const secret = decoded(key, SECRET_PREFIX);
      if (secret.length === 0) throw new RangeError(`nothing follows ${SECRET_PREFIX}`);
      this.#secrets.push(secret);
    } else if (key.startsWith(PUBLIC_KEY_PREFIX)) {
      this.#publicKeys.push(ed25519(decoded(key, PUBLIC_KEY_PREFIX)));
    } else {
      throw new RangeError(`a key to verify with begins with ${SECRET_PREFIX} or ${PUBLIC_KEY_PREFIX}`);
    }
  }

  #fits(signature: string, signed: Buffer): boolean {
    const [scheme, encoded = ""] = signature.split(/,(.*)/s);
    if (!BASE64.test(encoded)) return false;
    const given = Buffer.from(encoded, "base64");
    if (scheme === "v1") {
      return this.#secrets.some((secret) => {
        const expected = createHmac("sha256", secret).update(signed).digest();
        return given.length === expected.length && timingSafeEqual(given, expected);
      });
    }
    return scheme === "v1a" && this.#publicKeys.some((key) => verify(null, signed, key, given));
  }
}

function header(headers: RequestHeaders, name: string): string {
  if (headers instanceof Headers) return headers.get(name) ?? "";
  const [, value = ""] = Object.entries(headers).find(([key]) => key.toLowerCase() === name) ?? [];
  return typeof value === "string" ? value : value.join(" ");
}

function decoded(key: string, prefix: string): Buffer {
  const encoded = key.slice(prefix.length);
  if (!BASE64.test(encoded)) throw new RangeError(`what follows ${prefix} is not base64`);
  return Buffer.from(encoded, "base64");
}

function ed25519(data: Buffer): KeyObject {
  if (data.length !== PUBLIC_KEY_BYTES) {
    throw new RangeError(`a public key has ${PUBLIC_KEY_BYTES} bytes, not ${data.length}`);
  }
  return createPublicKey({ key: Buffer.concat([ED25519_HEADER, data]), format: "der", type: "spki" });
}
