/** What a guard answers to one request for usage, and what the program says about it afterwards. */

import type { Decision } from "../generated/tidemark/v1/decision_pb.js";
import { amount, type Amount } from "../usage/events.js";

/** What the program says that it used. */
export interface Used {
  readonly quantity: string;
  readonly cost: string;
}

/** The answer to one request for usage. At the end of the work it is settled, or released. */
export class Hold {
  /** When it was answered. */
  readonly time = new Date();
  #used: Used | undefined;
  #isReleased = false;

  constructor(
    readonly reservationId: string,
    /** Whether the work may be done. */
    readonly allowed: boolean,
    /** What may be used, a decimal: less than was asked for with the policy CAP. */
    readonly quantity: string,
    /** The server has answered; false: the guard has, because the server did not. */
    readonly decided: boolean,
    /** undefined: no time will make it fit, or nothing is known. */
    readonly retryAfterMs?: number,
    /** The limit that refused, or the tightest one; empty: the answer names none. */
    readonly limitId = "",
    /** The whole answer of the server. */
    readonly decision?: Decision,
  ) {}

  /** What `settle` was called with. */
  get used(): Used | undefined {
    return this.#used;
  }

  /** Whether `release` was called last. */
  get isReleased(): boolean {
    return this.#isReleased;
  }

  /** Says what was used, and what it cost. Unsaid at the end of the work, all of `quantity` was used. */
  settle(quantity: Amount, cost?: Amount): void {
    this.#used = { quantity: amount(quantity, "quantity"), cost: amount(cost, "cost") };
    this.#isReleased = false;
  }

  /** Says that nothing was used: at the end of the work, all is given back. */
  release(): void {
    this.#used = undefined;
    this.#isReleased = true;
  }
}
