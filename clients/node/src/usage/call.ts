/** One EvaluateUsage call: writes messages while it reads answers, until the stream ends. */

import { errorOfCall, type TidemarkError } from "../errors/errors.js";
import type { EvaluateUsageResponse } from "../generated/tidemark/v1/alert_service_pb.js";
import type { Message, UsageDuplex, UsageMethods } from "./methods.js";

/** How a stream ended: as the server wanted, or with an error, or because it cannot be used any longer. */
export type End = { readonly error?: TidemarkError; readonly broken?: string };

/** What a call needs of the stream that it is a part of. */
export interface Messages {
  /** The messages that are sent or are being sent, the oldest first. */
  readonly unacknowledged: readonly Message[];
  /** Takes one more message into `unacknowledged`; undefined: there is none, or there are enough. */
  take(): Message | undefined;
  /** No further message will come, and all are acknowledged. */
  readonly isComplete: boolean;
  /** An answer. Throws if it belongs to no message. */
  acknowledge(answer: EvaluateUsageResponse): void;
  /** The server has shown that it is alive. */
  noteAlive(): void;
}

/** Sends the unacknowledged messages again, then new ones, over one stream. */
export class UsageCall {
  /** Events that were sent again. */
  resent = 0;
  readonly #call: UsageDuplex;
  readonly #ended: Promise<End>;
  #end: (end: End) => void = () => {};
  #isOver = false;
  #isHalfClosed = false;
  #timer: NodeJS.Timeout | undefined;

  /**
   * silenceMs: without an answer or a heartbeat, after which the stream counts as broken. farewellMs: for the server
   * to end a stream in which it sent going_away. Throws CancelledError where the client was closed.
   */
  constructor(
    private readonly messages: Messages,
    private readonly methods: UsageMethods,
    private readonly silenceMs: number,
    private readonly farewellMs: number,
  ) {
    this.#call = methods.open();
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** Resolves when the stream has ended. */
  async run(signal: AbortSignal): Promise<End> {
    this.#call.on("data", (answer: EvaluateUsageResponse) => this.#read(answer));
    this.#call.on("error", (error: Error) => this.#finish({ error: errorOfCall(error) }));
    this.#call.on("end", () => this.#finish({}));
    const abort = () => this.#finish({ broken: "the writer was closed" });
    signal.addEventListener("abort", abort, { once: true });
    try {
      this.#await(this.silenceMs, () => {
        if (this.messages.unacknowledged.length === 0) this.messages.noteAlive(); // it owed a heartbeat only
        this.#finish({ broken: `the server was silent for ${this.silenceMs / 1_000} seconds` });
      });
      for (const message of this.messages.unacknowledged) {
        this.resent += message.events.length;
        this.#write(message);
      }
      this.pump();
      return await this.#ended;
    } finally {
      this.#isOver = true;
      clearTimeout(this.#timer);
      signal.removeEventListener("abort", abort);
      this.#call.cancel();
    }
  }

  /** Writes what there is to write. Few messages are with gRPC at a time, so its buffer stays small. */
  pump(): void {
    if (this.#isOver || this.#isHalfClosed) return;
    for (let message; (message = this.messages.take()) !== undefined;) this.#write(message);
    if (this.messages.isComplete) {
      this.#isHalfClosed = true;
      this.#call.end();
    }
  }

  #write(message: Message): void {
    this.#call.write(this.methods.encode(message));
  }

  #read(answer: EvaluateUsageResponse): void {
    if (this.#isOver) return;
    this.#timer?.refresh();
    if (answer.goingAway) {
      // No answer follows. What is being written may be read by another server: it is sent again there.
      this.#isHalfClosed = true;
      this.#await(this.farewellMs, () => this.#finish({}));
      return;
    }
    this.messages.noteAlive();
    if (answer.heartbeat) return;
    try {
      this.messages.acknowledge(answer);
    } catch (error) {
      this.#finish({ error: errorOfCall(error) });
      return;
    }
    this.pump();
  }

  #await(milliseconds: number, then: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, milliseconds);
  }

  #finish(end: End): void {
    this.#isOver = true;
    // gRPC ends the answers before it reports an error, so an end without one is known only a moment later.
    if (end.error === undefined && end.broken === undefined) setImmediate(() => this.#end(end));
    else this.#end(end);
  }
}
