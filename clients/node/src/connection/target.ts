/** Where a server is and how to reach it: address, TLS and API key, from arguments or from the environment. */

import { readFileSync } from "node:fs";

import { type ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";

import type { Logger } from "../tasks/logger.js";
import { channelOptions } from "./options.js";

export const DEFAULT_ADDRESS = "127.0.0.1:50051";
export const DEFAULT_TIMEOUT_MS = 10_000;
const ADDRESS_VARIABLE = "TIDEMARK_SERVER";
/** The first that is set counts; the second is that of the commands. */
const KEY_VARIABLES = ["TIDEMARK_API_KEY", "TIDEMARK_KEY"];

/** The content of a PEM file, or the path of one. */
export type Pem = Uint8Array | string | URL;

/** TLS to a server. */
export interface Tls {
  /** The authorities of the server's certificate; unset: those of the system. */
  readonly authorities?: Pem;
  /** The certificate of the client, for a server that asks for one. */
  readonly certificate?: Pem;
  /** The key of that certificate. */
  readonly key?: Pem;
  /** The name in the server's certificate, if it is not that of the address. */
  readonly serverName?: string;
}

/** How a client reaches a server, and what each of its calls carries. */
export interface ClientOptions {
  /** `HOST:PORT`; unset: that of TIDEMARK_SERVER, or else 127.0.0.1:50051. */
  readonly address?: string | undefined;
  /** true: TLS with the authorities of the system. Unset: no TLS. */
  readonly tls?: boolean | Tls | undefined;
  /** `tmk_…`; unset: that of TIDEMARK_API_KEY, or else of TIDEMARK_KEY, or else none. */
  readonly apiKey?: string | undefined;
  /** Of a call without a timeout of its own; unset: 10 s; `Infinity`: none. Calls with streams have none. */
  readonly timeoutMs?: number;
  /** The name of your program, such as `gateway/1.2`, for the logs of servers. */
  readonly userAgent?: string;
  /** Of each call, beside the key. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Of the channel of `@grpc/grpc-js`. */
  readonly channelOptions?: ChannelOptions;
  /** Where interruptions and lost reports go; unset: the console. */
  readonly logger?: Logger;
}

/** A server, and what each call to it carries. */
export class Target {
  readonly address: string;
  readonly isSecure: boolean;
  readonly timeoutMs: number;
  readonly channelOptions: ChannelOptions;
  readonly logger: Logger;
  /** Of the channel. */
  readonly credentials: ChannelCredentials;
  // Private, so that no log shows the key.
  readonly #metadata: readonly [string, string][];

  /** Throws RangeError where an option is wrong, and what readFileSync throws for a file of `tls`. */
  constructor(options: ClientOptions = {}) {
    this.address = options.address || process.env[ADDRESS_VARIABLE] || DEFAULT_ADDRESS;
    if (this.address.includes("://")) {
      throw new RangeError(`"${this.address}" is not an address of gRPC: write HOST:PORT, without a scheme`);
    }
    const tls = options.tls === true ? {} : options.tls || undefined;
    this.isSecure = tls !== undefined;
    this.credentials = tls === undefined ? credentials.createInsecure() : secure(tls);
    this.timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.logger = options.logger ?? console;
    this.channelOptions = {
      ...channelOptions(options.userAgent ?? ""),
      ...(tls?.serverName === undefined ? {} : { "grpc.ssl_target_name_override": tls.serverName }),
      ...options.channelOptions,
    };
    const key = options.apiKey ?? keyOfEnvironment();
    this.#metadata = Object.entries(options.metadata ?? {});
    if (key.trim()) this.#metadata = [["authorization", `Bearer ${checkedKey(key)}`], ...this.#metadata];
  }

  /** The metadata of every call: the API key, if there is one, and the target's own. */
  get metadata(): readonly (readonly [string, string])[] {
    return this.#metadata;
  }
}

function secure(tls: Tls): ChannelCredentials {
  if ((tls.certificate === undefined) !== (tls.key === undefined)) {
    throw new RangeError("certificate and key of the client belong together: give both or none");
  }
  return credentials.createSsl(pem(tls.authorities), pem(tls.key), pem(tls.certificate));
}

function pem(source: Pem | undefined): Buffer | null {
  if (source === undefined) return null;
  if (source instanceof Uint8Array) return Buffer.from(source);
  if (typeof source === "string" && source.trimStart().startsWith("-----BEGIN")) return Buffer.from(source);
  return readFileSync(source);
}

function keyOfEnvironment(): string {
  return KEY_VARIABLES.map((name) => process.env[name]?.trim()).find(Boolean) ?? "";
}

/** A key with other characters would fail in gRPC, with an unclear message. */
function checkedKey(key: string): string {
  const found = key.trim();
  if (!/^[\x21-\x7e]+$/.test(found)) {
    throw new RangeError("this is not an API key: a key is tmk_ and letters, digits, - and _, without blanks");
  }
  return found;
}
