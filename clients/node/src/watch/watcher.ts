/** `Watcher`: notifications as they are committed, each once, from one stream after another. */

import { setTimeout as sleep } from "node:timers/promises";

import { create } from "@bufbuild/protobuf";

import type { Connection } from "../connection/connection.js";
import { TidemarkError } from "../errors/errors.js";
import { PASSING } from "../errors/status.js";
import {
  AlertService,
  type WatchNotificationsRequest,
  WatchNotificationsRequestSchema,
  type WatchNotificationsResponse,
} from "../generated/tidemark/v1/alert_service_pb.js";
import type { ConditionType } from "../generated/tidemark/v1/condition_pb.js";
import type { EventType } from "../generated/tidemark/v1/event_type_pb.js";
import type { Notification } from "../generated/tidemark/v1/notification_pb.js";
import { Backoff } from "../tasks/backoff.js";
import { TimeoutError, within } from "../tasks/waiting.js";
import { type Time, toTimestamp } from "../times.js";
import { MemoryTokens, type TokenStore } from "./tokens.js";

/** Without a notification or a heartbeat, after which a stream counts as broken. */
const SILENCE_MS = 60_000;

/** Which notifications a watcher hands over, and where it begins. Filters that are unset or empty let all pass. */
export interface WatchOptions {
  readonly customerIds?: readonly string[];
  readonly alertIds?: readonly string[];
  readonly conditionTypes?: readonly ConditionType[];
  readonly eventTypes?: readonly EventType[];
  /** Where to begin without a token; unset: now. */
  readonly startTime?: Time;
  /** Where the position is kept; unset: in memory. A token belongs to the filters with which it came. */
  readonly tokens?: TokenStore;
  /** Ends the iteration when it is aborted. */
  readonly signal?: AbortSignal;
  /** Gets a sentence whenever a stream broke; unset: it is logged. */
  readonly onInterruption?: (sentence: string) => void;
}

/** A notification, and the token that begins right after it. notification: undefined for a heartbeat. */
export interface Position {
  readonly notification: Notification | undefined;
  readonly resumeToken: string;
}

/**
 * Notifications in the order of their commits, each once, through restarts of servers and lost connections.
 *
 * `for await (const notification of watcher)` keeps the position when the next notification is asked for, `run` when
 * the handler is done. So a program that stops in the middle of a notification gets that one again: make its effect
 * harmless to repeat, by `notificationId`; or use `positions`, and keep the token in the transaction of the effect.
 */
export class Watcher implements AsyncIterable<Notification> {
  readonly #connection: Connection;
  readonly #options: WatchOptions;
  readonly #tokens: TokenStore;

  constructor(connection: Connection, options: WatchOptions = {}) {
    this.#connection = connection;
    this.#options = options;
    this.#tokens = options.tokens ?? new MemoryTokens();
  }

  /**
   * Every notification, without end. Throws FailedPreconditionError with the reason RESUME_TOKEN_EXPIRED if
   * notifications after the kept position were deleted because of their age, and another TidemarkError if a new
   * stream would fail in the same way.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Notification, void, undefined> {
    for await (const { notification, resumeToken } of this.positions()) {
      if (notification !== undefined) yield notification;
      await this.#tokens.save(resumeToken); // only now: the program is done with it
    }
  }

  /**
   * Calls the handler with every notification, one after the other, until the signal is aborted. Throws what the
   * handler throws, and what the iteration does.
   */
  async run(handler: (notification: Notification) => unknown): Promise<void> {
    for await (const notification of this) await handler(notification);
  }

  /** Every notification and every heartbeat with its token, which the caller keeps. Throws as the iteration does. */
  async *positions(): AsyncGenerator<Position, void, undefined> {
    const { signal } = this.#options;
    const backoff = new Backoff();
    let token = await this.#tokens.load();
    while (!signal?.aborted) {
      try {
        for await (const { resumeToken, notification } of this.#answers(this.#request(token))) {
          backoff.reset();
          yield { notification, resumeToken };
          token = resumeToken;
        }
        // A server that drains ends the stream without an error, and another server takes the next stream.
      } catch (error) {
        if (signal?.aborted) return;
        this.#interrupted(this.#passing(error));
      }
      await sleep(backoff.next(), undefined, { signal }).catch(() => {}); // only an abort can end it early
    }
  }

  async *#answers(request: WatchNotificationsRequest): AsyncGenerator<WatchNotificationsResponse, void, undefined> {
    const { signal } = this.#options;
    const method = AlertService.method.watchNotifications;
    // Waiting for an answer ends when the call does, so a stream that is silent is ended by a signal, too.
    const ending = new AbortController();
    const abort = () => ending.abort();
    signal?.addEventListener("abort", abort, { once: true });
    const answers = this.#connection.serverStream(method, request, { signal: ending.signal });
    try {
      for (;;) {
        const { value, done } = await within(SILENCE_MS, answers.next());
        if (done) return;
        yield value;
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      abort();
      await answers.return().catch(() => {}); // it throws why it was aborted
    }
  }

  #request(token: string): WatchNotificationsRequest {
    const { customerIds, alertIds, conditionTypes, eventTypes, startTime } = this.#options;
    const request = create(WatchNotificationsRequestSchema, {
      resumeToken: token,
      customerIds: [...(customerIds ?? [])],
      alertIds: [...(alertIds ?? [])],
      conditionTypes: [...(conditionTypes ?? [])],
      eventTypes: [...(eventTypes ?? [])],
    });
    if (startTime !== undefined && !token) request.startTime = toTimestamp(startTime);
    return request;
  }

  /** Why a stream broke. Throws the error if a new stream would fail in the same way. */
  #passing(error: unknown): string {
    if (error instanceof TimeoutError) return `the server was silent for ${SILENCE_MS / 1_000} seconds`;
    if (error instanceof TidemarkError && !this.#connection.isClosed) {
      if (PASSING.has(error.code) || error.retryAfterMs !== undefined) return error.details;
    }
    throw error;
  }

  #interrupted(sentence: string): void {
    if (this.#options.onInterruption !== undefined) this.#options.onInterruption(sentence);
    else this.#connection.logger.warn(`the notification stream was interrupted: ${sentence}`);
  }
}
