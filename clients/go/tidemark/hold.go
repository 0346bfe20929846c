package tidemark

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tidemark.dev/api/tidemark/v1"
)

// Hold is the answer to one request for usage. End it with Settle or Release; only the first of them counts.
type Hold struct {
	ReservationID string
	// Allowed says whether the work may be done.
	Allowed bool
	// Quantity is what may be used, a decimal string: less than was asked for with the policy CAP.
	Quantity string
	// Decided says whether the server has answered. If not, the guard has decided by FailOpen.
	Decided bool
	// RetryAfter is after how long the usage will fit; nil: no time will make it fit, or nothing is known.
	RetryAfter *time.Duration
	// LimitID is the limit that refused, or the tightest one.
	LimitID string
	// Decision is the whole answer of the server; nil where it has not answered.
	Decision *pb.Decision
	// Time is when it was asked for, and the time of the usage if it is sent as an event.
	Time time.Time

	guard *Guard
	usage Usage
	stop  context.CancelFunc // of the extensions

	mu      sync.Mutex
	isEnded bool
}

// Settle says what was used, a decimal string, and what it cost, if that is known. It returns at once: the report is sent
// in the background until it is acknowledged.
func (h *Hold) Settle(quantity, cost string) {
	if !h.end() {
		return
	}
	if h.Decided {
		h.guard.report("settlement", h, h.guard.settle(h, quantity, cost))
	} else {
		h.guard.report("event", h, h.guard.event(h, quantity, cost))
	}
}

// SettleAll says that all of Quantity was used, at the Cost of the request.
func (h *Hold) SettleAll() { h.Settle(h.Quantity, h.usage.Cost) }

// Release says that nothing was used: all is given back.
func (h *Hold) Release() {
	if h.end() {
		h.guard.report("release", h, h.guard.release(h))
	}
}

// end returns false if the hold has ended before.
func (h *Hold) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isEnded {
		return false
	}
	h.isEnded = true
	if h.stop != nil {
		h.stop()
	}
	return true
}

func (h *Hold) take(decision *pb.Decision) {
	h.Decision, h.Decided = decision, true
	h.Allowed = decision.GetOutcome() != pb.DecisionOutcome_DECISION_OUTCOME_DENIED
	h.Quantity = decision.GetGrantedQuantity()
	if h.Quantity == "" {
		h.Quantity = "0"
	}
	h.LimitID = decision.GetLimit().GetLimitId()
	if decision.RetryAfter != nil {
		after := decision.RetryAfter.AsDuration()
		h.RetryAfter = &after
	}
}

// extend extends the reservation while the work lasts. Two of three extensions may be lost.
func (h *Hold) extend() {
	var ctx context.Context
	ctx, h.stop = context.WithCancel(h.guard.reports.ctx)
	request := &pb.ExtendReservationRequest{
		CustomerId:    h.usage.CustomerID,
		ReservationId: h.ReservationID,
		Expiry:        &pb.ExtendReservationRequest_Ttl{Ttl: durationpb.New(h.guard.options.TTL)},
	}
	interval := h.guard.options.TTL / 3
	go func() {
		for sleep(ctx, interval) == nil {
			try, cancel := context.WithTimeout(ctx, interval)
			_, err := h.guard.client.Limits.ExtendReservation(try, request)
			cancel()
			if err != nil && ctx.Err() == nil {
				// If it expires, its settlement counts all the same, as usage without a reservation.
				h.guard.options.Logf("tidemark: no extension of %s: %v", h.ReservationID, err)
			}
		}
	}()
}

// event is the usage as an event that settles the reservation.
func (h *Hold) event(quantity, cost string) *pb.UsageEvent {
	event := &pb.UsageEvent{
		EventId:        h.ReservationID,
		ReservationId:  h.ReservationID,
		CustomerId:     h.usage.CustomerID,
		SubscriptionId: h.usage.SubscriptionID,
		MetricId:       h.usage.MetricID,
		Quantity:       quantity,
		Cost:           cost,
		EventTime:      timestamppb.New(h.Time),
		Properties:     h.usage.Properties,
	}
	if cost != "" {
		event.Currency = h.usage.Currency
	}
	return event
}
