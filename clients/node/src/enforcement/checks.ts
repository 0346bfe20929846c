/** `CachedChecks`: decisions from a cache, for requests of which each is small, and one more does no harm. */

import { setTimeout as sleep } from "node:timers/promises";

import type { Timestamp } from "@bufbuild/protobuf/wkt";

import type { Connection } from "../connection/connection.js";
import { type ServiceClient, serviceClient } from "../connection/service.js";
import { TidemarkError } from "../errors/errors.js";
import { DecisionOutcome } from "../generated/tidemark/v1/decision_pb.js";
import { type BatchCheckUsageResponse, LimitService } from "../generated/tidemark/v1/limit_service_pb.js";
import type { Logger } from "../tasks/logger.js";
import { REPEATED } from "./reports.js";

/** Of one BatchCheckUsage. */
const MOST_CUSTOMERS = 100;
/** In which customers come together in one call. */
const GATHERING_MS = 5;

/** How old a decision may be. */
export interface CheckOptions {
  /** What is answered when the server has not, and the last answer is older than maxStaleMs; unset: false. */
  readonly failOpen?: boolean;
  /** For which an answer is used; at most as long as the answer says (`validUntilTime`); unset: 2,000. */
  readonly maxAgeMs?: number;
  /** The same while the server does not answer; unset: 30,000. */
  readonly maxStaleMs?: number;
  /** For one call; unset: 500. */
  readonly checkMs?: number;
  /** Customers; those that were read longest ago are forgotten; unset: 100,000. */
  readonly mostCached?: number;
}

/** One answer. time: when it was asked for, by the monotonic clock; since then it may be wrong. */
interface Cached {
  readonly allowed: boolean;
  readonly time: number;
}

/** Whether customers may use one more unit of a metric. The API key needs the role reader. */
export class CachedChecks {
  readonly #options: Required<CheckOptions>;
  readonly #limits: ServiceClient<typeof LimitService>;
  readonly #logger: Logger;
  readonly #cache = new Map<string, Cached>();
  /** Of each customer that is read now. Those that are asked for in the same moment share a call. */
  readonly #reading = new Map<string, Promise<void>>();
  #gathering: { readonly customerIds: string[]; readonly read: Promise<Map<string, Promise<void>>> } | undefined;
  #validMs: number;

  constructor(
    connection: Connection,
    private readonly metricId: string,
    options: CheckOptions = {},
  ) {
    this.#options = {
      failOpen: false,
      maxAgeMs: 2_000,
      maxStaleMs: 30_000,
      checkMs: 500,
      mostCached: 100_000,
      ...options,
    };
    this.#validMs = this.#options.maxAgeMs;
    this.#limits = serviceClient(connection, LimitService);
    this.#logger = connection.logger;
  }

  /** The answer of the cache; undefined if there is none that is young enough. */
  cached(customerId: string): boolean | undefined {
    const found = this.#cache.get(customerId);
    const limit = Math.min(this.#options.maxAgeMs, this.#validMs);
    return found !== undefined && performance.now() - found.time < limit ? found.allowed : undefined;
  }

  /**
   * Whether the customer may use one more. Usage in the last maxAgeMs may be missing in the answer. Throws
   * TidemarkError where the request or the key is wrong: failOpen is not for mistakes.
   */
  async mayUse(customerId: string): Promise<boolean> {
    const cached = this.cached(customerId);
    if (cached !== undefined) return cached;
    await this.#read(customerId);
    const found = this.#cache.get(customerId);
    const isKnown = found !== undefined && performance.now() - found.time < this.#options.maxStaleMs;
    return isKnown ? found.allowed : this.#options.failOpen;
  }

  /** Reads the decision. Requests for one customer share a read, and customers share a call. */
  #read(customerId: string): Promise<void> {
    let reading = this.#reading.get(customerId);
    if (reading === undefined) {
      this.#gathering ??= this.#gather();
      this.#gathering.customerIds.push(customerId);
      reading = this.#gathering.read
        .then((parts) => parts.get(customerId))
        .finally(() => this.#reading.delete(customerId));
      this.#reading.set(customerId, reading);
    }
    return reading;
  }

  #gather(): { customerIds: string[]; read: Promise<Map<string, Promise<void>>> } {
    const customerIds: string[] = [];
    const read = sleep(GATHERING_MS).then(() => {
      this.#gathering = undefined;
      const parts = new Map<string, Promise<void>>();
      for (let at = 0; at < customerIds.length; at += MOST_CUSTOMERS) {
        const part = customerIds.slice(at, at + MOST_CUSTOMERS);
        const asked = this.#ask(part);
        for (const customerId of part) parts.set(customerId, asked);
      }
      return parts;
    });
    return { customerIds, read };
  }

  async #ask(customerIds: string[]): Promise<void> {
    const time = performance.now();
    const usages = [{ metricId: this.metricId, quantity: "1" }];
    let answer: BatchCheckUsageResponse;
    try {
      answer = await this.#limits.batchCheckUsage({ customerIds, usages }, { timeoutMs: this.#options.checkMs });
    } catch (error) {
      if (!(error instanceof TidemarkError) || !REPEATED.has(error.code)) throw error;
      this.#logger.warn(`no checks: ${error.message}`); // what is cached is used for longer, up to maxStaleMs
      return;
    }
    // The difference of two times of the server: its clock and this one may differ.
    this.#validMs = microseconds(answer.validUntilTime) / 1_000 - microseconds(answer.updateTime) / 1_000;
    for (const { customerId, checks } of answer.customers) {
      const result = checks[0]?.result;
      if (result?.case === "decision") {
        this.#cache.delete(customerId); // so that it becomes the youngest
        this.#cache.set(customerId, { allowed: result.value.outcome !== DecisionOutcome.DENIED, time });
      } else {
        this.#logger.warn(`no check of ${customerId}: ${result?.value?.message ?? "the answer is empty"}`);
      }
    }
    for (const customerId of this.#cache.keys()) {
      if (this.#cache.size <= this.#options.mostCached) break;
      this.#cache.delete(customerId);
    }
  }
}

/** Microseconds since 1970, which a number has exactly. */
function microseconds(time: Timestamp | undefined): number {
  return time === undefined ? 0 : Number(time.seconds) * 1e6 + Math.floor(time.nanos / 1_000);
}
