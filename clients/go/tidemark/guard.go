package tidemark

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "tidemark.dev/api/tidemark/v1"
)

const (
	firstReportPause = 100 * time.Millisecond
	// reportTimeout is of one try in the background; no client waits for it.
	reportTimeout = 5 * time.Second
)

// GuardOptions say how a guard decides. A zero value means the value that is named first.
type GuardOptions struct {
	// FailOpen: false. Whether work is done while the server does not answer; its usage is then sent as an event.
	FailOpen bool
	// DecisionTimeout: 1 s, for a decision with all tries. TryTimeout: 400 ms, for one of them.
	DecisionTimeout, TryTimeout time.Duration
	// TTL: 60 s. Then a reservation of a lost program is given back; one whose work takes longer is extended.
	TTL time.Duration
	// Policy: REJECT. What happens to a request that does not fit.
	Policy pb.UsageOveragePolicy
	// MostReports: 10,000. Holds that are not ended, and reports that are not acknowledged; beyond, Reserve waits.
	MostReports int
	// Logf: log.Printf. Gets what happens in the background.
	Logf func(format string, values ...interface{})
}

// Usage is what a Guard is asked for.
type Usage struct {
	CustomerID, MetricID string
	// Quantity is a decimal string, and so is Cost, which is optional, as everything below is.
	Quantity, Cost, Currency string
	SubscriptionID           string
	Properties               map[string]string
	// ReservationID is the id of the request, if it has one that no caller of the program can choose; unique for the
	// customer. Empty: a new one.
	ReservationID string
}

// Guard reserves usage before it happens, and reports afterwards, in the background. One guard is for all goroutines of
// a program. The API key needs the role ingester. Reports are in memory only: a program that is killed loses them, and
// its reservations expire.
type Guard struct {
	client  *Client
	options GuardOptions
	reports *reports
}

// Guard makes a guard. Close it before the client.
func (c *Client) Guard(options GuardOptions) *Guard {
	for _, one := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&options.DecisionTimeout, time.Second},
		{&options.TryTimeout, 400 * time.Millisecond},
		{&options.TTL, 60 * time.Second},
	} {
		if *one.value <= 0 {
			*one.value = one.unset
		}
	}
	if options.Policy == pb.UsageOveragePolicy_USAGE_OVERAGE_POLICY_UNSPECIFIED {
		options.Policy = pb.UsageOveragePolicy_USAGE_OVERAGE_POLICY_REJECT
	}
	if options.MostReports <= 0 {
		options.MostReports = 10_000
	}
	if options.Logf == nil {
		options.Logf = log.Printf
	}
	return &Guard{client: c, options: options, reports: newReports(options.MostReports, options.Logf)}
}

// Close waits for the reports until the context ends. It returns an error with the number of those that are lost. Holds
// that are not ended are not waited for; to end them afterwards sends nothing.
func (g *Guard) Close(ctx context.Context) error {
	if left := g.reports.drain(ctx); left > 0 {
		return fmt.Errorf("tidemark: %d reports about reservations are not acknowledged", left)
	}
	return nil
}

// Reserve asks for usage. Look at Allowed of the Hold first; then call Settle with what was used, or Release:
//
//	hold, err := guard.Reserve(ctx, usage)
//	if err != nil {
//		return err
//	}
//	defer hold.Release() // nothing, if it is settled
//
// While the work lasts, the reservation is extended. If no decision comes within DecisionTimeout, the guard decides as
// FailOpen says.
//
// It returns an *Error where the request or the key is wrong, because FailOpen is not for mistakes; the error of the
// context if that ends first; and ErrClosed after Close.
func (g *Guard) Reserve(ctx context.Context, usage Usage) (*Hold, error) {
	if usage.ReservationID == "" {
		// One id for all tries: a try whose answer was lost is not held twice.
		usage.ReservationID = newReservationID()
	}
	if err := g.reports.acquire(ctx); err != nil {
		return nil, err
	}
	hold := &Hold{ReservationID: usage.ReservationID, Time: time.Now(), guard: g, usage: usage}
	decision, err := g.decide(ctx, usage)
	if err != nil && ctx.Err() == nil {
		// Nothing is released: with RESERVATION_CONFLICT, the reservation is that of another request.
		g.reports.free()
		return nil, err
	}
	if err != nil {
		// The caller has gone. A try may have been carried out all the same.
		g.report("release", hold, g.release(hold))
		return nil, ctx.Err()
	}
	if decision != nil {
		hold.take(decision)
	} else if g.options.FailOpen {
		hold.Allowed, hold.Quantity = true, usage.Quantity
	}
	switch {
	case hold.Allowed && hold.Decided:
		hold.extend()
	case hold.Allowed:
	case hold.Decided:
		hold.isEnded = true
		g.reports.free()
	default: // a try may have been carried out
		hold.isEnded = true
		g.report("release", hold, g.release(hold))
	}
	return hold, nil
}

// decide returns the decision of the server; nil if none came in time.
func (g *Guard) decide(ctx context.Context, usage Usage) (*pb.Decision, error) {
	request := &pb.ReserveUsageRequest{
		ReservationId: usage.ReservationID,
		Usage: &pb.RequestedUsage{
			CustomerId:     usage.CustomerID,
			SubscriptionId: usage.SubscriptionID,
			MetricId:       usage.MetricID,
			Quantity:       usage.Quantity,
			Cost:           usage.Cost,
			Currency:       usage.Currency,
			Properties:     usage.Properties,
		},
		OveragePolicy: g.options.Policy,
		Expiry:        &pb.ReserveUsageRequest_Ttl{Ttl: durationpb.New(g.options.TTL)},
	}
	deadline, cancel := context.WithTimeout(ctx, g.options.DecisionTimeout)
	defer cancel()
	pauses := newPauses(firstReportPause, longestPause)
	for deadline.Err() == nil {
		try, cancel := context.WithTimeout(deadline, g.options.TryTimeout)
		answer, err := g.client.Limits.ReserveUsage(try, request)
		cancel()
		if err == nil {
			return answer.GetDecision(), nil
		}
		if ctx.Err() != nil || !isRepeated(asError(err).Code) {
			return nil, err
		}
		g.options.Logf("tidemark: no decision: %v", err)
		_ = sleep(deadline, pauses.failed()) // the loop looks whether the time is over
	}
	return nil, ctx.Err()
}

func (g *Guard) report(what string, hold *Hold, send func(context.Context) error) {
	g.reports.send(what+" of "+hold.ReservationID, send)
}

// settle sends a settlement. Where the reservation has ended in another way, the usage is sent as an event.
func (g *Guard) settle(hold *Hold, quantity, cost string) func(context.Context) error {
	request := &pb.SettleReservationRequest{
		CustomerId: hold.usage.CustomerID, ReservationId: hold.ReservationID, Quantity: quantity, Cost: cost,
	}
	event := g.event(hold, quantity, cost)
	return func(ctx context.Context) error {
		_, err := g.client.Limits.SettleReservation(ctx, request)
		if hasEnded(err) {
			return event(ctx) // an operator released it, for example. The usage has happened, so it counts
		}
		return err
	}
}

// release sends a release. That there is nothing to release is as good.
func (g *Guard) release(hold *Hold) func(context.Context) error {
	request := &pb.ReleaseReservationRequest{CustomerId: hold.usage.CustomerID, ReservationId: hold.ReservationID}
	return func(ctx context.Context) error {
		_, err := g.client.Limits.ReleaseReservation(ctx, request)
		if hasEnded(err) {
			return nil
		}
		return err
	}
}

// event sends the usage as an event, which settles the reservation if there is one after all. It has the id that a
// settlement gives it, so it cannot count beside one.
func (g *Guard) event(hold *Hold, quantity, cost string) func(context.Context) error {
	event := hold.event(quantity, cost)
	return func(ctx context.Context) error {
		content, err := encoded(event)
		if err != nil {
			return &Error{Code: codes.InvalidArgument, Message: err.Error(), cause: err}
		}
		outcome, err := g.client.evaluateBatch(ctx, "", [][]byte{content}, answerOptions{})
		if err != nil {
			return err
		}
		for _, one := range outcome.GetRejected() {
			return ErrorOfStatus(one.GetStatus())
		}
		for _, one := range outcome.GetOverLimits() {
			g.options.Logf("tidemark: %s is over its limit %s by usage that was admitted", one.CustomerId, one.LimitId)
		}
		return nil
	}
}

// hasEnded says whether the reservation of a call has ended, or never was.
func hasEnded(err error) bool {
	if err == nil {
		return false
	}
	code := asError(err).Code
	return code == codes.NotFound || code == codes.FailedPrecondition
}

// isRepeated says whether a repetition can change the answer.
func isRepeated(code codes.Code) bool {
	return isPassing(code) || code == codes.ResourceExhausted || code == codes.Aborted
}

func newReservationID() string {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic("tidemark: no random numbers for the id of a reservation: " + err.Error())
	}
	return hex.EncodeToString(random[:])
}
