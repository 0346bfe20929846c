/** Calls over one channel: they carry the API key, have a deadline, and throw the errors of this package. */

import {
  create,
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type CallOptions as GrpcOptions, Client, type ClientDuplexStream, Metadata, status } from "@grpc/grpc-js";

import { clientClosed, errorOfCall, UnavailableError } from "../errors/errors.js";
import type { Logger } from "../tasks/logger.js";
import type { Target } from "./target.js";

/** Of one call. */
export interface CallOptions {
  /** Unset: that of the client for calls with one answer, and none for streams. `Infinity`: none. */
  readonly timeoutMs?: number;
  /** Ends the call when it is aborted. */
  readonly signal?: AbortSignal | undefined;
  /** Beside that of the client. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The messages of a method. */
export type Requests<Desc extends DescMessage> =
  Iterable<MessageInitShape<Desc>> | AsyncIterable<MessageInitShape<Desc>>;

interface Cancellable {
  cancel(): void;
}

const asIs = (content: Buffer): Buffer => content;

/** A channel to a server. It connects at the first call. */
export class Connection {
  readonly logger: Logger;
  readonly #target: Target;
  readonly #client: Client;
  readonly #active = new Set<Cancellable>();
  #isClosed = false;

  constructor(target: Target) {
    this.logger = target.logger;
    this.#target = target;
    this.#client = new Client(target.address, target.credentials, target.channelOptions);
  }

  /** Whether `close` was called. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Closes the channel. Calls in progress end with CANCELLED. */
  close(): void {
    this.#isClosed = true;
    for (const call of [...this.#active]) call.cancel();
    this.#client.close();
  }

  /** Connects. Throws UnavailableError if that takes longer. */
  waitUntilReady(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(Date.now() + timeoutMs, (error) => {
        if (!error) return resolve();
        const hint = this.#target.isSecure ? "" : "; a server with TLS needs the option tls";
        const message = `no server answers at ${this.#target.address} within ${timeoutMs} ms${hint}`;
        reject(new UnavailableError({ code: status.UNAVAILABLE, message }, error));
      });
    });
  }

  /** A call with one request and one answer. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    const content = Buffer.from(toBinary(method.input, create(method.input, request)));
    return this.unaryEncoded(method, content, options);
  }

  /** A call whose request is encoded already. */
  async unaryEncoded<O extends DescMessage>(
    method: DescMethodUnary<DescMessage, O>,
    request: Buffer,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    options.signal?.throwIfAborted();
    this.#check();
    const deadline = options.timeoutMs ?? this.#target.timeoutMs;
    let end = () => {};
    try {
      return await new Promise<MessageShape<O>>((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          path(method),
          asIs,
          (content) => fromBinary(method.output, content),
          request,
          this.#metadata(options),
          grpcOptions(deadline),
          (error, answer) => (error ? reject(error) : resolve(answer as MessageShape<O>)),
        );
        end = this.#track(call, options.signal);
      });
    } catch (error) {
      throw this.#translated(error, options.signal);
    } finally {
      end();
    }
  }

  /** A call with one request and many answers. Ending the iteration ends the call. */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    options.signal?.throwIfAborted();
    this.#check();
    const call = this.#client.makeServerStreamRequest(
      path(method),
      asIs,
      (content) => fromBinary(method.output, content),
      Buffer.from(toBinary(method.input, create(method.input, request))),
      this.#metadata(options),
      grpcOptions(options.timeoutMs),
    );
    yield* this.#answers<MessageShape<O>>(call, options.signal);
  }

  /** A call with many requests and many answers. */
  async *bidi<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    requests: Requests<I>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    options.signal?.throwIfAborted();
    const call = this.duplex(method, options);
    const writing = (async () => {
      for await (const request of requests) {
        if (call.destroyed) return;
        const content = Buffer.from(toBinary(method.input, create(method.input, request)));
        await new Promise<void>((resolve) => call.write(content, () => resolve()));
      }
      call.end();
    })();
    writing.catch(() => call.cancel()); // otherwise the reader waits for the answer to what is never written
    let failed = true;
    try {
      yield* this.#answers<MessageShape<O>>(call, options.signal);
      failed = false;
    } finally {
      // An error of the requests explains the end of the call better than CANCELLED does.
      if (failed) await Promise.race([writing, Promise.resolve()]);
    }
  }

  /** The stream of a call with many requests and many answers, with requests that are encoded already. */
  duplex<O extends DescMessage>(
    method: DescMethodBiDiStreaming<DescMessage, O>,
    options: CallOptions = {},
  ): ClientDuplexStream<Buffer, MessageShape<O>> {
    this.#check();
    const call = this.#client.makeBidiStreamRequest(
      path(method),
      asIs,
      (content) => fromBinary(method.output, content),
      this.#metadata(options),
      grpcOptions(options.timeoutMs),
    );
    const end = this.#track(call, options.signal);
    call.on("status", end);
    return call;
  }

  async *#answers<T>(
    call: AsyncIterable<T> & Cancellable & NodeJS.EventEmitter,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T, void, undefined> {
    const end = this.#track(call, signal);
    call.on("error", () => {}); // also after the iteration has ended: then CANCELLED comes
    try {
      for await (const answer of call) yield answer;
    } catch (error) {
      throw this.#translated(error, signal);
    } finally {
      end();
      call.cancel();
    }
  }

  /** Lets `close` and the signal end the call; returns what to call when it has ended. */
  #track(call: Cancellable, signal: AbortSignal | undefined): () => void {
    const cancel = () => call.cancel();
    this.#active.add(call);
    signal?.addEventListener("abort", cancel, { once: true });
    return () => {
      this.#active.delete(call);
      signal?.removeEventListener("abort", cancel);
    };
  }

  /** Throws where the client was closed: gRPC's own error has no code. */
  #check(): void {
    if (this.#isClosed) throw clientClosed();
  }

  #translated(error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    return this.#isClosed ? clientClosed() : errorOfCall(error);
  }

  #metadata(options: CallOptions): Metadata {
    const metadata = new Metadata();
    for (const [name, value] of this.#target.metadata) metadata.add(name, value);
    for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.add(name, value);
    return metadata;
  }
}

function path(method: { readonly parent: DescService; readonly name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function grpcOptions(timeoutMs = Infinity): GrpcOptions {
  return timeoutMs === Infinity ? {} : { deadline: Date.now() + timeoutMs };
}
