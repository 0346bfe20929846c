/** The two methods that count usage, with requests that are encoded already. */

import type { ClientDuplexStream } from "@grpc/grpc-js";

import type { Connection } from "../connection/connection.js";
import { UnknownError } from "../errors/errors.js";
import { AlertService, type EvaluateUsageResponse } from "../generated/tidemark/v1/alert_service_pb.js";
import type { UsageOutcome } from "../generated/tidemark/v1/usage_pb.js";
import { type AnswerOptions, encodeRequest } from "./wire.js";

const BATCH_TIMEOUT_MS = 30_000;

/** The events of one message, encoded. batchId: comes back in the outcome. */
export interface Message {
  readonly batchId: string;
  readonly events: readonly Uint8Array[];
}

/** A stream of usage. */
export type UsageDuplex = ClientDuplexStream<Buffer, EvaluateUsageResponse>;

/** EvaluateUsage and EvaluateUsageBatch over one connection. */
export class UsageMethods {
  constructor(
    private readonly connection: Connection,
    private readonly answers: AnswerOptions,
  ) {}

  /** A new stream. Throws CancelledError where the client was closed. */
  open(): UsageDuplex {
    return this.connection.duplex(AlertService.method.evaluateUsage);
  }

  /** The message as a request of the stream. */
  encode({ batchId, events }: Message): Buffer {
    return encodeRequest(batchId, events, this.answers);
  }

  /** Sends events in a call of their own. Throws TidemarkError. */
  async send(message: Message, signal: AbortSignal): Promise<UsageOutcome> {
    const options = { timeoutMs: BATCH_TIMEOUT_MS, signal };
    const method = AlertService.method.evaluateUsageBatch;
    const { outcome } = await this.connection.unaryEncoded(method, this.encode(message), options);
    if (outcome === undefined) throw new UnknownError({ code: 2, message: "the answer has no outcome" });
    return outcome;
  }
}
