/** `Guard`: work that uses something of a customer is done only if it fits into the customer's limits. */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { create } from "@bufbuild/protobuf";

import type { Connection } from "../connection/connection.js";
import { TidemarkError } from "../errors/errors.js";
import { DecisionOutcome, UsageOveragePolicy } from "../generated/tidemark/v1/decision_pb.js";
import { type ReserveUsageRequest, ReserveUsageRequestSchema } from "../generated/tidemark/v1/limit_service_pb.js";
import { Backoff } from "../tasks/backoff.js";
import type { Logger } from "../tasks/logger.js";
import { durationMs, toDuration } from "../times.js";
import { amount, type Amount } from "../usage/events.js";
import { LimitCalls } from "./calls.js";
import { Hold } from "./hold.js";
import { FIRST_PAUSE_MS, LONGEST_PAUSE_MS, REPEATED, Reports } from "./reports.js";

/** How a guard decides. */
export interface GuardOptions {
  /** Whether work is done while the server does not answer; its usage is then sent as an event; unset: false. */
  readonly failOpen?: boolean;
  /** How long a caller may wait for a decision, with all tries; unset: 1,000. */
  readonly decisionMs?: number;
  /** Of them, for one try; unset: 400. */
  readonly tryMs?: number;
  /** After which a reservation of a lost program is given back; longer work extends it; unset: 60,000. */
  readonly ttlMs?: number;
  /** What happens to a request that does not fit; unset: REJECT. */
  readonly policy?: UsageOveragePolicy;
  /** Reports in memory that are not acknowledged; beyond, the guard makes its caller wait; unset: 10,000. */
  readonly mostReports?: number;
  /** How long closing waits for them; unset: 30,000. */
  readonly drainMs?: number;
}

/** Usage that is asked for before it happens. */
export interface WantedUsage {
  readonly customerId: string;
  readonly metricId: string;
  readonly quantity: Amount;
  readonly cost?: Amount;
  readonly currency?: string;
  readonly properties?: Readonly<Record<string, string>>;
  readonly subscriptionId?: string;
  /** The id of the request, if it has one that no client can choose; unique for the customer. Unset: a new one. */
  readonly reservationId?: string;
}

/**
 * Reserves usage before it happens, and reports afterwards. The API key needs the role ingester.
 *
 * Close it at the end: that waits for its reports. They are in memory only: a program that is killed loses them, and
 * its reservations expire.
 */
export class Guard {
  readonly #options: Required<GuardOptions>;
  readonly #calls: LimitCalls;
  readonly #reports: Reports;
  readonly #logger: Logger;

  constructor(connection: Connection, options: GuardOptions = {}) {
    this.#options = {
      failOpen: false,
      decisionMs: 1_000,
      tryMs: 400,
      ttlMs: 60_000,
      policy: UsageOveragePolicy.REJECT,
      mostReports: 10_000,
      drainMs: 30_000,
      ...options,
    };
    this.#logger = connection.logger;
    this.#calls = new LimitCalls(connection);
    this.#reports = new Reports(this.#options.mostReports, connection.logger);
  }

  /**
   * Does the work with the answer, and returns its result: look at `allowed` first, and call `settle` with what was
   * used. After the work the reservation is settled in the background. It is released if the work failed and said
   * nothing of what it used.
   *
   * Throws what the work throws, and TidemarkError where the request or the key is wrong: `failOpen` is not for
   * mistakes.
   */
  async reserve<T>(usage: WantedUsage, work: (hold: Hold) => T | Promise<T>): Promise<T> {
    const request = this.#request(usage);
    const hold = await this.#decide(request);
    if (!hold.allowed) {
      if (!hold.decided) await this.#release(request); // a try may have been carried out all the same
      return work(hold);
    }
    const heartbeat = hold.decided ? this.#extendMeanwhile(request) : undefined;
    let result: T;
    try {
      result = await work(hold);
    } catch (error) {
      if (hold.used === undefined) await this.#release(request);
      else await this.#report(request, hold);
      throw error;
    } finally {
      clearInterval(heartbeat);
    }
    if (hold.isReleased) await this.#release(request);
    else await this.#report(request, hold);
    return result;
  }

  /** Waits for the reports; unset: for `drainMs`. Returns how many are not acknowledged, and logs that. */
  async close(milliseconds = this.#options.drainMs): Promise<number> {
    const lost = await this.#reports.drain(milliseconds);
    if (lost > 0) this.#logger.error(`${lost} reports about reservations are not acknowledged`);
    return lost;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #request(usage: WantedUsage): ReserveUsageRequest {
    return create(ReserveUsageRequestSchema, {
      reservationId: usage.reservationId || randomUUID(), // for all tries: one whose answer was lost is not held twice
      usage: {
        customerId: usage.customerId,
        subscriptionId: usage.subscriptionId ?? "",
        metricId: usage.metricId,
        quantity: amount(usage.quantity, "quantity"),
        cost: amount(usage.cost, "cost"),
        currency: usage.currency ?? "",
        properties: { ...usage.properties },
      },
      overagePolicy: this.#options.policy,
      expiry: { case: "ttl", value: toDuration(this.#options.ttlMs) },
    });
  }

  /** The answer of the server, or after decisionMs the one of this guard. */
  async #decide(request: ReserveUsageRequest): Promise<Hold> {
    const { failOpen, decisionMs, tryMs } = this.#options;
    const { reservationId } = request;
    const end = performance.now() + decisionMs;
    const backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    for (let left; (left = end - performance.now()) > 0;) {
      try {
        const { decision } = await this.#calls.reserve(request, Math.min(left, tryMs));
        return new Hold(
          reservationId,
          decision?.outcome !== DecisionOutcome.DENIED,
          decision?.grantedQuantity || "0",
          true,
          decision?.retryAfter && durationMs(decision.retryAfter),
          decision?.limit?.limitId,
          decision,
        );
      } catch (error) {
        // Nothing is released: with RESERVATION_CONFLICT, the reservation is that of another request.
        if (!(error instanceof TidemarkError) || !REPEATED.has(error.code)) throw error;
        this.#logger.warn(`no decision: ${error.message}`);
        await sleep(Math.min(backoff.next(), Math.max(0, end - performance.now())));
      }
    }
    return new Hold(reservationId, failOpen, failOpen ? (request.usage?.quantity ?? "0") : "0", false);
  }

  /** Settles the reservation; or sends an event, where it is not known whether there is one. */
  async #report(request: ReserveUsageRequest, hold: Hold): Promise<void> {
    const used = hold.used ?? { quantity: hold.quantity, cost: request.usage?.cost ?? "" };
    const event = this.#calls.event(request, hold.time, used);
    if (!hold.decided) {
      await this.#reports.send(`event ${request.reservationId}`, event);
      return;
    }
    const settle = this.#calls.settlement(request, used, event);
    await this.#reports.send(`settlement of ${request.reservationId}`, settle);
  }

  async #release(request: ReserveUsageRequest): Promise<void> {
    await this.#reports.send(`release of ${request.reservationId}`, this.#calls.release(request));
  }

  /** Extends the reservation while the work lasts. Two of three extensions may be lost. */
  #extendMeanwhile(request: ReserveUsageRequest): NodeJS.Timeout {
    const third = this.#options.ttlMs / 3;
    return setInterval(() => {
      this.#calls.extend(request, third).catch((error: unknown) => {
        // If it expires, its settlement counts all the same, as usage without a reservation.
        this.#logger.warn(`no extension: ${error instanceof Error ? error.message : error}`);
      });
    }, third);
  }
}
