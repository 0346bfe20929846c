// A guard: work that uses something of a customer is done only if it fits into the customer's limits.
//
//   const answer = await guard.reserve({ customerId, metricId: "tokens", quantity: "1000" }, async (grant) => {
//     if (!grant.allowed) return tooManyRequests(grant.retryAfter);
//     const completion = await model.complete(prompt, { maxTokens: Number(grant.quantity) });
//     grant.used = String(completion.tokens);
//     return completion;
//   });
//
// After the work the reservation is settled with what was used. It is released if the work failed and used nothing.
// Amounts are decimal strings: a number of JavaScript would round them.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";

import { PASSING, REPAIRABLE } from "./api.js";

const { status } = grpc;
const CALL_TIMEOUT = 5_000; // milliseconds for one try in the background; no client waits for it
const FIRST_PAUSE = 100; // milliseconds
const LONGEST_PAUSE = 5_000;

// Twice as long each time, and random, so that gateways do not come together.
const pause = (tries) => (0.5 + Math.random() / 2) * Math.min(FIRST_PAUSE * 2 ** Math.min(tries, 16), LONGEST_PAUSE);

const none = (error) => error.code === status.NOT_FOUND || error.code === status.FAILED_PRECONDITION;

export class Guard {
  #call;
  #options;
  #reports = new Set();

  // call: of `connect`. failOpen: whether work is done while Tidemark does not answer; its usage is then sent as an
  // event. decisionMilliseconds: how long a client may wait for a decision, with all tries. tryMilliseconds: of them,
  // for one try. ttlSeconds: after which a reservation of a lost gateway is given back. mostReports: how many may be on
  // their way at the same time; with so many, nothing more is admitted.
  constructor(call, { failOpen, ...options }) {
    if (typeof failOpen !== "boolean") throw new TypeError("failOpen: say true or false");
    this.#call = call;
    this.#options = {
      decisionMilliseconds: 1_000,
      tryMilliseconds: 400,
      ttlSeconds: 60,
      mostReports: 10_000,
      overagePolicy: "USAGE_OVERAGE_POLICY_REJECT",
      ...options,
      failOpen,
    };
  }

  // Does the work with the answer { allowed, quantity, decided, retryAfter, limitId, used }, and returns its result.
  // reservationId: the id of the request, if it has one that no client can choose; unique for the customer.
  async reserve({ customerId, metricId, quantity, reservationId = randomUUID() }, work) {
    const request = {
      reservation_id: reservationId, // one id for all tries: a try whose answer was lost is not held twice
      usage: { customer_id: customerId, metric_id: metricId, quantity },
      overage_policy: this.#options.overagePolicy,
      ttl: { seconds: this.#options.ttlSeconds, nanos: 0 },
    };
    if (this.#reports.size >= this.#options.mostReports) return work(denial(reservationId));
    const grant = await this.#decide(request);
    if (!grant.allowed) {
      if (!grant.decided) this.#release(request); // a try may have been carried out all the same
      return work(grant);
    }
    const heartbeat = grant.decided ? this.#extendMeanwhile(request) : undefined;
    try {
      const result = await work(grant);
      this.#settle(request, grant);
      return result;
    } catch (error) {
      if (grant.used === undefined) this.#release(request);
      else this.#settle(request, grant);
      throw error;
    } finally {
      clearInterval(heartbeat);
    }
  }

  // Waits for all reports before the program ends; resolves with how many were not acknowledged in that time.
  async drain(milliseconds) {
    const end = Date.now() + milliseconds;
    while (this.#reports.size > 0 && Date.now() < end) {
      await Promise.race([...this.#reports, sleep(Math.max(0, end - Date.now()), undefined, { ref: false })]);
    }
    return this.#reports.size;
  }

  async #decide(request) {
    const { failOpen, decisionMilliseconds, tryMilliseconds } = this.#options;
    const end = Date.now() + decisionMilliseconds;
    for (let tries = 0, left; (left = end - Date.now()) > 0; tries += 1) {
      try {
        const answer = await this.#call("LimitService", "ReserveUsage", request, Math.min(left, tryMilliseconds));
        const { outcome, granted_quantity: quantity, retry_after: wait, limit } = answer.decision;
        return {
          reservationId: request.reservation_id,
          allowed: outcome !== "DECISION_OUTCOME_DENIED",
          quantity,
          decided: true,
          retryAfter: wait ? Number(wait.seconds) + (wait.nanos ?? 0) / 1e9 : undefined,
          limitId: limit?.limit_id,
          used: undefined,
          time: new Date(),
        };
      } catch (error) {
        if (!PASSING.has(error.code)) throw error; // failOpen is not for mistakes
        console.warn(`no decision: ${error.message}`);
        await sleep(Math.min(pause(tries), Math.max(0, end - Date.now())));
      }
    }
    if (!failOpen) return denial(request.reservation_id);
    const { quantity } = request.usage;
    return { ...denial(request.reservation_id), allowed: true, quantity };
  }

  #settle(request, grant) {
    const quantity = grant.used ?? grant.quantity;
    const sendEvent = () => this.#sendEvent(request, grant, quantity);
    if (!grant.decided) {
      this.#report(`event ${request.reservation_id}`, sendEvent);
      return;
    }
    const settlement = { customer_id: request.usage.customer_id, reservation_id: request.reservation_id, quantity };
    this.#report(`settlement of ${request.reservation_id}`, async () => {
      try {
        await this.#call("LimitService", "SettleReservation", settlement, CALL_TIMEOUT);
      } catch (error) {
        // It ended in another way, such as by an operator's release. The usage has happened, so it counts.
        if (!none(error)) throw error;
        await sendEvent();
      }
    });
  }

  // The event settles the reservation if there is one after all. It has the id that a settlement gives it, so it cannot
  // count beside one.
  async #sendEvent(request, grant, quantity) {
    const milliseconds = grant.time.getTime();
    const event = {
      event_id: request.reservation_id,
      reservation_id: request.reservation_id,
      customer_id: request.usage.customer_id,
      metric_id: request.usage.metric_id,
      quantity,
      event_time: { seconds: Math.floor(milliseconds / 1000), nanos: (milliseconds % 1000) * 1e6 },
    };
    const { outcome } = await this.#call("AlertService", "EvaluateUsageBatch", { batch: { events: [event] } }, CALL_TIMEOUT);
    for (const rejected of outcome.rejected ?? []) {
      console.error(`the event ${event.event_id} was rejected: ${rejected.status.message}`);
    }
    for (const limit of outcome.over_limits ?? []) {
      console.warn(`${limit.customer_id} is over its limit ${limit.limit_id} by usage that was admitted`);
    }
  }

  #release(request) {
    const release = { customer_id: request.usage.customer_id, reservation_id: request.reservation_id };
    this.#report(`release of ${request.reservation_id}`, async () => {
      try {
        await this.#call("LimitService", "ReleaseReservation", release, CALL_TIMEOUT);
      } catch (error) {
        if (!none(error)) throw error; // there is none, or it holds nothing
      }
    });
  }

  // Two of three extensions may be lost.
  #extendMeanwhile(request) {
    const third = (this.#options.ttlSeconds * 1_000) / 3;
    const extension = {
      customer_id: request.usage.customer_id,
      reservation_id: request.reservation_id,
      ttl: request.ttl,
    };
    return setInterval(() => {
      this.#call("LimitService", "ExtendReservation", extension, third).catch((error) =>
        // If it expires, its settlement counts all the same, as usage without a reservation.
        console.warn(`no extension: ${error.message}`),
      );
    }, third);
  }

  // Sends until it is acknowledged. Reports are in memory only: see docs/enforcement.md for a gateway that is killed.
  #report(name, send) {
    const reporting = (async () => {
      for (let tries = 0; ; tries += 1) {
        try {
          await send();
          return;
        } catch (error) {
          if (!PASSING.has(error.code) && !REPAIRABLE.has(error.code)) {
            // A mistake of this program: an alert on this line must say so, because the usage is not counted.
            console.error(`${name} was refused: ${error.message}`);
            return;
          }
          if (tries === 0) console.warn(`${name} is repeated: ${error.message}`);
          await sleep(pause(tries));
        }
      }
    })().finally(() => this.#reports.delete(reporting));
    this.#reports.add(reporting);
  }
}

const denial = (reservationId) => ({
  reservationId,
  allowed: false,
  quantity: "0",
  decided: false,
  retryAfter: undefined,
  limitId: undefined,
  used: undefined,
  time: new Date(),
});
