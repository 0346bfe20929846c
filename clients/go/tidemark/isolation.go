package tidemark

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "tidemark.dev/api/tidemark/v1"
)

const (
	methodEvaluateUsageBatch = "/tidemark.v1.AlertService/EvaluateUsageBatch"
	batchTimeout             = 30 * time.Second
	// maxFailing is how many events may fail alone before any part succeeds: then the server fails with every event.
	maxFailing = 20
)

// isolate sends the oldest message in smaller and smaller parts, so that an event with which the server fails is
// rejected alone. It returns false, and the message stays, when the server does not answer or fails with every event;
// and an error that a new try would not change.
func (l *lane) isolate() (bool, *Error) {
	l.w.mu.Lock()
	if len(l.inFlight) == 0 {
		l.w.mu.Unlock()
		return false, nil
	}
	message := l.inFlight[0]
	l.w.mu.Unlock()
	whole := &pb.UsageOutcome{BatchId: message.batchID}
	hasSucceeded := false
	parts := [][2]int{{0, len(message.events)}} // start and end of each part that is left; the last one is next
	for len(parts) > 0 {
		start, end := parts[len(parts)-1][0], parts[len(parts)-1][1]
		parts = parts[:len(parts)-1]
		l.countResent(end - start)
		answer, err := l.w.client.evaluateBatch(l.w.ctx, message.batchID, message.events[start:end], l.w.answers)
		if err == nil {
			hasSucceeded = true
			addOutcome(whole, answer, start)
			continue
		}
		found := asError(err)
		isFailing := !hasSucceeded && len(whole.Rejected) >= maxFailing
		if !isServerFault(found.Code) || isFailing {
			if found.RetryAfter != nil || isPassing(found.Code) || found.Code == codes.Aborted {
				return false, nil
			}
			return false, found
		}
		if end-start > 1 {
			middle := (start + end) / 2
			parts = append(parts, [2]int{middle, end}, [2]int{start, middle})
			continue
		}
		whole.Rejected = append(whole.Rejected, &pb.Rejection{Index: int32(start), Status: found.GRPCStatus().Proto()})
	}
	return true, l.acknowledge(whole, true)
}

func addOutcome(whole, part *pb.UsageOutcome, start int) {
	whole.Accepted += part.GetAccepted()
	whole.Duplicates += part.GetDuplicates()
	for _, one := range part.GetRejected() {
		one.Index += int32(start)
		whole.Rejected = append(whole.Rejected, one)
	}
	whole.Transitions = append(whole.Transitions, part.GetTransitions()...)
	whole.Gauges = append(whole.Gauges, part.GetGauges()...)
	whole.OverLimits = append(whole.OverLimits, part.GetOverLimits()...)
	if omitted := part.GetOmitted(); omitted != nil {
		if whole.Omitted == nil {
			whole.Omitted = &pb.OmittedResults{IngestTime: omitted.GetIngestTime()}
		}
		whole.Omitted.TransitionCount += omitted.GetTransitionCount()
		whole.Omitted.GaugeCount += omitted.GetGaugeCount()
		whole.Omitted.RejectionCount += omitted.GetRejectionCount()
	}
}

// evaluateBatch counts encoded events in a call with one answer.
func (c *Client) evaluateBatch(
	ctx context.Context, batchID string, events [][]byte, options answerOptions,
) (*pb.UsageOutcome, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	answer := &pb.EvaluateUsageBatchResponse{}
	request := encodedRequest(batchID, events, options)
	if err := c.conn.Invoke(ctx, methodEvaluateUsageBatch, request, answer, grpc.ForceCodec(rawCodec{})); err != nil {
		return nil, err
	}
	return answer.GetOutcome(), nil
}
