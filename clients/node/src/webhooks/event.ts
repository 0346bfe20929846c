/** The event that a webhook reports, read from its body. */

/** One threshold that was reached or resolved. Amounts are decimals in strings. */
export interface ReportedTransition {
  /** REACHED or RESOLVED. */
  readonly kind: string;
  /** Of the threshold. */
  readonly level: string;
  /** Of the gauge, after the change. */
  readonly value: string;
  /** The caller's. */
  readonly code: string;
  readonly severity: string;
  /** All of it as it came. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** One event. Ignore an id that you have seen before: delivery is at least once. */
export interface WebhookEvent {
  /** As in the header webhook-id. */
  readonly id: string;
  /** Such as `alert.reached`; new ones may be added. */
  readonly type: string;
  /** When it was found: RFC 3339, to the microsecond. `new Date(time)` has milliseconds only. */
  readonly time: string;
  /** What happened, as docs/events describes it; new fields may be added. */
  readonly data: Readonly<Record<string, unknown>>;
  /** Whether it is an example, and nothing has happened. */
  readonly isTest: boolean;
  /** The alert; empty if the event is about something else. */
  readonly alertId: string;
  /** The customer; empty if the event is about no single one. */
  readonly customerId: string;
  /** The number among the events of the same alert and gauge: the higher one is newer. 0: it has none. */
  readonly sequence: number;
  /** The value of the gauge, a decimal in a string; undefined if the event is not about a gauge. */
  readonly value: string | undefined;
  /** The value before. */
  readonly previousValue: string | undefined;
  /** The thresholds that were reached or resolved, in order. */
  readonly transitions: readonly ReportedTransition[];
}

type Fields = Readonly<Record<string, unknown>>;

/** The event of a body that was verified, or of `Notification.body`. Throws SyntaxError. */
export function parseEvent(webhookId: string, body: string): WebhookEvent {
  const found: unknown = JSON.parse(body);
  if (!isObject(found)) throw new SyntaxError("it is no object");
  const { id, type, timestamp, data } = found;
  if (typeof type !== "string" || typeof timestamp !== "string" || !isObject(data)) {
    throw new SyntaxError("type, timestamp or data is missing");
  }
  if (Number.isNaN(Date.parse(timestamp))) throw new SyntaxError("timestamp is no time");
  const sequence = Number(data.sequence ?? 0);
  return {
    id: typeof id === "string" ? id : webhookId, // the header is signed, as the body is; they say the same
    type,
    time: timestamp,
    data,
    isTest: data.test === true,
    alertId: text(data.alert_id) ?? "",
    customerId: text(data.customer_id) ?? "",
    sequence: Number.isSafeInteger(sequence) ? sequence : 0,
    value: text(data.value),
    previousValue: text(data.previous_value),
    transitions: (Array.isArray(data.transitions) ? data.transitions : []).filter(isObject).map(transition),
  };
}

function transition(fields: Fields): ReportedTransition {
  const threshold = isObject(fields.threshold) ? fields.threshold : {};
  return {
    kind: text(fields.kind) ?? "",
    level: text(fields.level) ?? "",
    value: text(fields.value) ?? "",
    code: text(threshold.code) ?? "",
    severity: text(threshold.severity) ?? "",
    fields,
  };
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
