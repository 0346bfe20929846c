/** The calls of a guard. Reports are single tries, each with the same request. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { status as codes } from "@grpc/grpc-js";

import type { Connection } from "../connection/connection.js";
import { type ServiceClient, serviceClient } from "../connection/service.js";
import { TidemarkError } from "../errors/errors.js";
import { AlertService, EvaluateUsageBatchRequestSchema } from "../generated/tidemark/v1/alert_service_pb.js";
import {
  LimitService,
  type ReserveUsageRequest,
  type ReserveUsageResponse,
} from "../generated/tidemark/v1/limit_service_pb.js";
import type { Used } from "./hold.js";
import type { Send } from "./reports.js";

/** For one try in the background; no client waits for it. */
const CALL_TIMEOUT_MS = 5_000;

/** Calls over one connection. They throw TidemarkError. */
export class LimitCalls {
  readonly #limits: ServiceClient<typeof LimitService>;
  readonly #alerts: ServiceClient<typeof AlertService>;

  constructor(private readonly connection: Connection) {
    this.#limits = serviceClient(connection, LimitService);
    this.#alerts = serviceClient(connection, AlertService);
  }

  /** One try to reserve. */
  reserve(request: ReserveUsageRequest, timeoutMs: number): Promise<ReserveUsageResponse> {
    return this.#limits.reserveUsage(request, { timeoutMs });
  }

  /** One try to extend the reservation by its ttl. */
  async extend(request: ReserveUsageRequest, timeoutMs: number): Promise<void> {
    await this.#limits.extendReservation({ ...names(request), expiry: request.expiry }, { timeoutMs });
  }

  /** A settlement. Where the reservation has ended in another way, the usage is sent as an event. */
  settlement(request: ReserveUsageRequest, used: Used, event: Send): Send {
    return async () => {
      try {
        await this.#limits.settleReservation({ ...names(request), ...used }, { timeoutMs: CALL_TIMEOUT_MS });
      } catch (error) {
        if (!hasEnded(error)) throw error;
        await event(); // an operator released it, for example; the usage has happened, so it counts
      }
    };
  }

  /** A release. That there is nothing to release is as good. */
  release(request: ReserveUsageRequest): Send {
    return async () => {
      try {
        await this.#limits.releaseReservation(names(request), { timeoutMs: CALL_TIMEOUT_MS });
      } catch (error) {
        if (!hasEnded(error)) throw error;
      }
    };
  }

  /**
   * The usage as an event, which settles the reservation if there is one after all. The event has the id that a
   * settlement gives it, so it cannot count beside one.
   */
  event(request: ReserveUsageRequest, time: Date, { quantity, cost }: Used): Send {
    const { logger } = this.connection;
    const { customerId = "", subscriptionId, metricId, currency, properties } = request.usage ?? {};
    const { reservationId } = request;
    const event = {
      eventId: reservationId,
      reservationId,
      customerId,
      subscriptionId,
      metricId,
      quantity,
      cost,
      currency: cost ? currency : "",
      properties,
      eventTime: timestampFromDate(time),
    };
    const sent = create(EvaluateUsageBatchRequestSchema, { batch: { events: [event] } });
    return async () => {
      const { outcome } = await this.#alerts.evaluateUsageBatch(sent, { timeoutMs: CALL_TIMEOUT_MS });
      for (const { status } of outcome?.rejected ?? []) {
        logger.error(`the event ${reservationId} was rejected: ${status?.message}`);
      }
      for (const limit of outcome?.overLimits ?? []) {
        logger.warn(`${limit.customerId} is over its limit ${limit.limitId} by usage that was admitted`);
      }
    };
  }
}

function names({ usage, reservationId }: ReserveUsageRequest): { customerId: string; reservationId: string } {
  return { customerId: usage?.customerId ?? "", reservationId };
}

function hasEnded(error: unknown): boolean {
  return error instanceof TidemarkError && [codes.NOT_FOUND, codes.FAILED_PRECONDITION].includes(error.code);
}
