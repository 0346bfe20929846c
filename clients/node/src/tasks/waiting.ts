/** Waiting: with a limit, and for a change that something else reports. */

/** The work was not done in time. */
export class TimeoutError extends Error {
  override name = "TimeoutError";
}

/** A timer of Node with more, 25 days, ends at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The result of the work. Throws TimeoutError after so many milliseconds; `Infinity` is no limit. */
export async function within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  if (milliseconds > LONGEST_TIMER_MS) return work;
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TimeoutError(`not done in ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets those that wait look again, whenever something has changed. */
export class Changes {
  #waiting: (() => void)[] = [];

  /** Resolves at the next change. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Something has changed. */
  note(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
