/** Back-off: the pause between two tries of one thing. It doubles, so that a server that is away is not flooded. */

export const FIRST_PAUSE_MS = 250;
export const LONGEST_PAUSE_MS = 5_000;

/** Of a pause, so that clients that lost one server do not return to it at once. */
const RANDOM_PART = 0.5;
const MOST_DOUBLINGS = 64;

/** The pauses between tries. first, longest: milliseconds, before a random part of up to a half is taken off. */
export class Backoff {
  #failures = 0;

  constructor(
    private readonly first = FIRST_PAUSE_MS,
    private readonly longest = LONGEST_PAUSE_MS,
  ) {}

  /** Begins anew, since the last try succeeded. */
  reset(): void {
    this.#failures = 0;
  }

  /** Counts a failure; returns how many milliseconds to wait before the next try. */
  next(): number {
    const length = Math.min(this.first * 2 ** Math.min(this.#failures, MOST_DOUBLINGS), this.longest);
    this.#failures += 1;
    return length * (1 - RANDOM_PART * Math.random());
  }
}
