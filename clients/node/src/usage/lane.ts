/** One of the streams of a writer: the message that is being filled, those that wait, and those that are sent. */

import { create, fromBinary } from "@bufbuild/protobuf";
import { status as codes } from "@grpc/grpc-js";

import { errorOfStatus } from "../errors/errors.js";
import { StatusSchema } from "../generated/google/rpc/status_pb.js";
import { UsageEventSchema, type UsageOutcome } from "../generated/tidemark/v1/usage_pb.js";
import type { Logger } from "../tasks/logger.js";
import { Changes } from "../tasks/waiting.js";
import type { Ledger } from "./ledger.js";
import type { UsageMethods } from "./methods.js";
import type { Settings } from "./options.js";
import { Pending, type Waiting } from "./pending.js";
import { type Source, UsageStream } from "./stream.js";

/** Of an event that the server fails to record, before it counts as rejected. */
const MAX_TRIES = 3;
/** Before such an event is sent again. */
const RETRY_PAUSE_MS = 500;
const RECORDED_LATER: ReadonlySet<codes> = new Set([codes.INTERNAL, codes.UNAVAILABLE]);

/** Sends its messages over one stream after another, in their order. */
export class Lane implements Source<Pending> {
  readonly #queue: Pending[] = [];
  readonly #delayed = new Map<Pending, NodeJS.Timeout>();
  readonly #stream: UsageStream<Pending>;
  readonly #wakened = new Changes();
  #filling = new Pending();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    methods: UsageMethods,
    private readonly settings: Settings,
    private readonly ledger: Ledger,
    private readonly logger: Logger,
  ) {
    this.#stream = new UsageStream(methods, this, settings.inFlight, settings.patienceMs);
  }

  /** Takes an encoded event. */
  add(content: Uint8Array, waiting?: Waiting): void {
    this.ledger.take(content.length);
    const filling = this.#filling;
    filling.add(content, waiting);
    if (filling.events.length >= this.settings.maxBatchEvents || filling.size >= this.settings.maxBatchBytes) {
      this.seal();
    } else if (filling.events.length === 1) {
      this.#timer = setTimeout(() => this.seal(), this.settings.lingerMs);
    }
  }

  /** Ends the message that is being filled, so that it is sent. */
  seal(): void {
    clearTimeout(this.#timer);
    if (this.#filling.events.length > 0) {
      this.#queue.push(this.#filling);
      this.#filling = new Pending();
    }
    this.wake();
  }

  /** Looks whether there is something to send, or an end. */
  wake(): void {
    this.#wakened.note();
    this.#stream.wake();
  }

  /**
   * Sends messages until the writer is closed and all are acknowledged. Throws TidemarkError. A lane without messages
   * opens no stream: servers limit their number.
   */
  async run(signal: AbortSignal): Promise<void> {
    while (this.#queue.length === 0) {
      if (this.ledger.isClosing) return;
      await this.#wakened.next();
    }
    await this.#stream.run(signal);
  }

  /** Rejects what waits for events. */
  fail(error: Error): void {
    clearTimeout(this.#timer);
    for (const timer of this.#delayed.values()) clearTimeout(timer);
    const all = [...this.#stream.unacknowledged, ...this.#queue, ...this.#delayed.keys(), this.#filling];
    for (const { waiting } of all) for (const one of waiting.values()) one.reject(error);
  }

  next(): Pending | undefined {
    return this.#queue.shift();
  }

  get isEnded(): boolean {
    return this.ledger.isClosing && this.#queue.length === 0 && this.#delayed.size === 0;
  }

  resent(events: number): void {
    this.ledger.counts.resent += events;
  }

  interrupted(sentence: string): void {
    this.#tell(this.settings.onInterruption, sentence);
  }

  acknowledge(pending: Pending, outcome: UsageOutcome, isFinal: boolean): void {
    const { counts } = this.ledger;
    const again = this.#rejected(pending, outcome, isFinal);
    counts.acknowledged += outcome.accepted + outcome.duplicates;
    counts.duplicates += outcome.duplicates;
    for (const waiting of pending.waiting.values()) waiting.resolve(outcome);
    if (again.events.length > 0) this.#sendLater(again);
    this.ledger.finish(pending.events.length - again.events.length, pending.size - again.size);
    if (this.settings.onCrossing !== undefined) {
      for (const transition of outcome.transitions) this.#tell(this.settings.onCrossing, transition);
    }
    if (this.settings.onOutcome !== undefined) this.#tell(this.settings.onOutcome, outcome);
  }

  /** Reports the rejected events; returns those that the server may record later. */
  #rejected(pending: Pending, outcome: UsageOutcome, isFinal: boolean): Pending {
    const again = new Pending(pending.tries + 1);
    for (const { index, status = create(StatusSchema) } of outcome.rejected) {
      const content = pending.events[index];
      if (content === undefined) continue;
      const waiting = pending.waiting.get(index);
      pending.waiting.delete(index);
      const error = errorOfStatus(status);
      if (RECORDED_LATER.has(error.code) && !isFinal && again.tries < MAX_TRIES) {
        again.add(content, waiting);
        continue;
      }
      this.ledger.counts.rejected += 1;
      if (waiting === undefined) this.#tell(this.settings.onRejected, fromBinary(UsageEventSchema, content), error);
      else waiting.reject(error);
    }
    return again;
  }

  #sendLater(again: Pending): void {
    const timer = setTimeout(() => {
      this.#delayed.delete(again);
      this.#queue.push(again);
      this.wake();
    }, RETRY_PAUSE_MS);
    this.#delayed.set(again, timer);
  }

  /** Calls a function of the program; its errors must not end the stream. */
  #tell<A extends unknown[]>(call: (...parameters: A) => void, ...parameters: A): void {
    try {
      call(...parameters);
    } catch (error) {
      this.logger.error(`${call.name || "a function of the usage writer"} threw an error: ${error}`);
    }
  }
}
