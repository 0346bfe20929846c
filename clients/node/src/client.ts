/** `Client`: a connection to a server, with its services, and what is built on them. */

import { type CallOptions, Connection } from "./connection/connection.js";
import { type ServiceClient, serviceClient } from "./connection/service.js";
import { type ClientOptions, DEFAULT_TIMEOUT_MS, Target } from "./connection/target.js";
import { CachedChecks, type CheckOptions } from "./enforcement/checks.js";
import { Guard, type GuardOptions } from "./enforcement/guard.js";
import { AccountService } from "./generated/tidemark/v1/account_service_pb.js";
import { AlertService } from "./generated/tidemark/v1/alert_service_pb.js";
import { AuditService } from "./generated/tidemark/v1/audit_service_pb.js";
import { LimitService } from "./generated/tidemark/v1/limit_service_pb.js";
import { WebhookService } from "./generated/tidemark/v1/webhook_service_pb.js";
import type { WriterOptions } from "./usage/options.js";
import { UsageWriter } from "./usage/writer.js";
import { Watcher, type WatchOptions } from "./watch/watcher.js";

export type { CallOptions };

/** A connection to a server. It connects at the first call; one is enough for a program. */
export class Client {
  /** Alerts, usage and notifications. */
  readonly alerts: ServiceClient<typeof AlertService>;
  /** Customers, subscriptions, metrics, plans, limits, balances and invoices. */
  readonly accounts: ServiceClient<typeof AccountService>;
  /** Checks and reservations of usage. */
  readonly limits: ServiceClient<typeof LimitService>;
  /** Endpoints and deliveries. */
  readonly webhooks: ServiceClient<typeof WebhookService>;
  /** The audit log. */
  readonly audit: ServiceClient<typeof AuditService>;
  readonly #connection: Connection;

  /** Throws RangeError where an option is wrong, and what readFileSync throws for a file of `tls`. */
  constructor(options: ClientOptions = {}) {
    this.#connection = new Connection(new Target(options));
    this.alerts = serviceClient(this.#connection, AlertService);
    this.accounts = serviceClient(this.#connection, AccountService);
    this.limits = serviceClient(this.#connection, LimitService);
    this.webhooks = serviceClient(this.#connection, WebhookService);
    this.audit = serviceClient(this.#connection, AuditService);
  }

  /** Connects. Throws UnavailableError if that takes longer. */
  async waitUntilReady(timeoutMs = DEFAULT_TIMEOUT_MS): Promise<void> {
    await this.#connection.waitUntilReady(timeoutMs);
  }

  /** A writer that sends usage in the background. Close it at the end: that waits for the acknowledgements. */
  usageWriter(options: WriterOptions = {}): UsageWriter {
    return new UsageWriter(this.#connection, options);
  }

  /** Notifications as they come: `for await (const notification of client.watcher())`. */
  watcher(options: WatchOptions = {}): Watcher {
    return new Watcher(this.#connection, options);
  }

  /** Reserves usage before it happens: `guard.reserve(usage, async (hold) => …)`, for all work of the program. */
  guard(options: GuardOptions = {}): Guard {
    return new Guard(this.#connection, options);
  }

  /** Whether customers may use one more unit of a metric, from a cache: `checks.mayUse("acme")`. */
  cachedChecks(metricId: string, options: CheckOptions = {}): CachedChecks {
    return new CachedChecks(this.#connection, metricId, options);
  }

  /** Closes the connection. Calls in progress end with CANCELLED. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A client that is connected. Throws UnavailableError if no server answers within the timeout. */
export async function connect(options: ClientOptions = {}): Promise<Client> {
  const client = new Client(options);
  try {
    await client.waitUntilReady(options.timeoutMs);
  } catch (error) {
    client.close();
    throw error;
  }
  return client;
}
