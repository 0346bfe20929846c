/** Finds the events of a message with which the server fails, by sending it in smaller and smaller parts. */

import { create } from "@bufbuild/protobuf";

import { TidemarkError } from "../errors/errors.js";
import { SERVER_FAULTS } from "../errors/status.js";
import { StatusSchema } from "../generated/google/rpc/status_pb.js";
import {
  OmittedResultsSchema,
  RejectionSchema,
  type UsageOutcome,
  UsageOutcomeSchema,
} from "../generated/tidemark/v1/usage_pb.js";
import type { Message, UsageMethods } from "./methods.js";

/** Events that fail alone before any part succeeds: then the server fails with every event. */
const MAX_REJECTED = 20;

/**
 * The answer to all the events; an event with which the server fails alone is rejected in it. The parts follow the
 * order of the events. When a later part fails for good, the earlier ones stay counted; their events are duplicates
 * when the message is sent again.
 *
 * onSent: gets the number of events each time that some are sent. Throws TidemarkError when the server cannot be
 * reached, or fails with each of the first events.
 */
export async function sendInParts(
  methods: UsageMethods,
  message: Message,
  signal: AbortSignal,
  onSent: (events: number) => void,
): Promise<UsageOutcome> {
  const { batchId, events } = message;
  const whole = create(UsageOutcomeSchema, { batchId });
  const parts: [start: number, end: number][] = [[0, events.length]]; // the next part is the last entry
  let hasSucceeded = false;
  for (let part; (part = parts.pop()) !== undefined;) {
    const [start, end] = part;
    onSent(end - start);
    try {
      add(whole, await methods.send({ batchId, events: events.slice(start, end) }, signal), start);
      hasSucceeded = true;
    } catch (error) {
      if (!(error instanceof TidemarkError) || !SERVER_FAULTS.has(error.code)) throw error;
      if (!hasSucceeded && whole.rejected.length >= MAX_REJECTED) throw error;
      if (end - start > 1) {
        const middle = Math.floor((start + end) / 2);
        parts.push([middle, end], [start, middle]);
      } else {
        const status = create(StatusSchema, { code: error.code, message: error.details });
        whole.rejected.push(create(RejectionSchema, { index: start, status }));
      }
    }
  }
  return whole;
}

function add(whole: UsageOutcome, answer: UsageOutcome, start: number): void {
  whole.accepted += answer.accepted;
  whole.duplicates += answer.duplicates;
  for (const rejection of answer.rejected) {
    rejection.index += start;
    whole.rejected.push(rejection);
  }
  whole.transitions.push(...answer.transitions);
  whole.gauges.push(...answer.gauges);
  whole.overLimits.push(...answer.overLimits);
  if (answer.omitted === undefined) return;
  whole.omitted ??= create(OmittedResultsSchema);
  whole.omitted.ingestTime ??= answer.omitted.ingestTime;
  whole.omitted.transitionCount += answer.omitted.transitionCount;
  whole.omitted.gaugeCount += answer.omitted.gaugeCount;
  whole.omitted.rejectionCount += answer.omitted.rejectionCount;
}
