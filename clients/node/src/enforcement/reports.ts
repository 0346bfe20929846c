/** What happened to reservations, sent in the background until it is acknowledged. */

import { setTimeout as sleep } from "node:timers/promises";

import { status as codes } from "@grpc/grpc-js";

import { errorOfCall } from "../errors/errors.js";
import { PASSING } from "../errors/status.js";
import { Backoff } from "../tasks/backoff.js";
import type { Logger } from "../tasks/logger.js";
import { Changes, TimeoutError, within } from "../tasks/waiting.js";

/** What a repetition can change. All others are final: the same request gets the same answer. */
export const REPEATED: ReadonlySet<codes> = new Set([...PASSING, codes.RESOURCE_EXHAUSTED, codes.ABORTED]);
/** What an operator can change: the key gets its role, or is exchanged. What happened is still true then. */
const REPAIRABLE: ReadonlySet<codes> = new Set([codes.UNAUTHENTICATED, codes.PERMISSION_DENIED]);
/** Between two tries. */
export const FIRST_PAUSE_MS = 100;
export const LONGEST_PAUSE_MS = 5_000;

/** One try: the same request each time. */
export type Send = () => Promise<unknown>;

/** Reports that are on their way. They are in memory only. */
export class Reports {
  readonly #active = new Set<Promise<void>>();
  readonly #changes = new Changes();
  readonly #stop = new AbortController();

  /** most: reports at the same time. A gateway that cannot report must not grow without a limit: it waits. */
  constructor(
    private readonly most: number,
    private readonly logger: Logger,
  ) {}

  /** Takes over a report, and is done before it is acknowledged. */
  async send(name: string, send: Send): Promise<void> {
    while (this.#active.size >= this.most) await this.#changes.next();
    const report = this.#untilAcknowledged(name, send).finally(() => {
      this.#active.delete(report);
      this.#changes.note();
    });
    this.#active.add(report);
  }

  /** Waits for all reports before the program ends; returns how many were not acknowledged in that time. */
  async drain(milliseconds: number): Promise<number> {
    try {
      await within(milliseconds, this.#none());
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
    }
    const lost = this.#active.size;
    this.#stop.abort();
    return lost;
  }

  async #none(): Promise<void> {
    while (this.#active.size > 0) await this.#changes.next();
  }

  async #untilAcknowledged(name: string, send: Send): Promise<void> {
    const backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    const { signal } = this.#stop;
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      try {
        await send();
        return;
      } catch (raised) {
        const error = errorOfCall(raised);
        if (!REPEATED.has(error.code) && !REPAIRABLE.has(error.code)) {
          // A mistake of this program: an alert on this line must say so, because the usage is not counted.
          this.logger.error(`${name} was refused: ${error.message}`);
          return;
        }
        if (isFirst) this.logger.warn(`${name} is repeated: ${error.message}`);
      }
      await sleep(backoff.next(), undefined, { signal }).catch(() => {}); // only an abort can end it early
    }
  }
}
