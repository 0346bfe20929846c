package tidemark

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tidemark.dev/api/tidemark/v1"
)

// limits is a server of LimitService whose errors a test chooses. done are the calls that were carried out.
type limits struct {
	pb.UnimplementedLimitServiceServer
	reserve, settle, check func() error
	decision               *pb.Decision

	mu   sync.Mutex
	done []string
}

func (l *limits) note(format string, values ...interface{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, fmt.Sprintf(format, values...))
}

func (l *limits) calls() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.done...)
}

func (l *limits) ReserveUsage(_ context.Context, r *pb.ReserveUsageRequest) (*pb.ReserveUsageResponse, error) {
	if l.reserve != nil {
		if err := l.reserve(); err != nil {
			return nil, err
		}
	}
	l.note("reserve %s %s", r.ReservationId, r.Usage.Quantity)
	return &pb.ReserveUsageResponse{Decision: l.decision}, nil
}

func (l *limits) SettleReservation(
	_ context.Context, r *pb.SettleReservationRequest,
) (*pb.SettleReservationResponse, error) {
	if l.settle != nil {
		if err := l.settle(); err != nil {
			return nil, err
		}
	}
	l.note("settle %s %s %s", r.ReservationId, r.Quantity, r.Cost)
	return &pb.SettleReservationResponse{}, nil
}

func (l *limits) ReleaseReservation(
	_ context.Context, r *pb.ReleaseReservationRequest,
) (*pb.ReleaseReservationResponse, error) {
	l.note("release %s", r.ReservationId)
	return nil, status.Error(codes.NotFound, "there is none") // as good as a release
}

func (l *limits) ExtendReservation(
	_ context.Context, r *pb.ExtendReservationRequest,
) (*pb.ExtendReservationResponse, error) {
	l.note("extend %s", r.ReservationId)
	return &pb.ExtendReservationResponse{}, nil
}

func (l *limits) BatchCheckUsage(_ context.Context, r *pb.BatchCheckUsageRequest) (*pb.BatchCheckUsageResponse, error) {
	if l.check != nil {
		if err := l.check(); err != nil {
			return nil, err
		}
	}
	l.note("check %d", len(r.CustomerIds))
	answer := &pb.BatchCheckUsageResponse{
		UpdateTime: timestamppb.New(noon), ValidUntilTime: timestamppb.New(noon.Add(5 * time.Second)),
	}
	for _, id := range r.CustomerIds {
		outcome := pb.DecisionOutcome_DECISION_OUTCOME_ALLOWED
		if strings.HasPrefix(id, "bad") {
			outcome = pb.DecisionOutcome_DECISION_OUTCOME_DENIED
		}
		answer.Customers = append(answer.Customers, &pb.CustomerDecisions{
			CustomerId: id,
			Checks:     []*pb.UsageCheck{{Result: &pb.UsageCheck_Decision{Decision: &pb.Decision{Outcome: outcome}}}},
		})
	}
	return answer, nil
}

func serveLimits(t *testing.T, l *limits) (*Client, *scripted) {
	t.Helper()
	events := &scripted{}
	events.one = func(batch *pb.UsageBatch) (*pb.UsageOutcome, error) {
		for _, one := range batch.Events {
			l.note("event %s %s %s", one.EventId, one.ReservationId, one.Quantity)
		}
		return accepted(batch), nil
	}
	address := serve(t, func(server *grpc.Server) {
		pb.RegisterLimitServiceServer(server, l)
		pb.RegisterAlertServiceServer(server, events)
	})
	return connected(t, address), events
}

func quiet(string, ...interface{}) {}

func granted(quantity string) *pb.Decision {
	return &pb.Decision{Outcome: pb.DecisionOutcome_DECISION_OUTCOME_ALLOWED, GrantedQuantity: quantity}
}

func usageOf(id string) Usage {
	return Usage{CustomerID: "acme", MetricID: "tokens", Quantity: "100", ReservationID: id}
}

func TestAHoldIsEndedOnce(t *testing.T) {
	server := &limits{decision: granted("100")}
	client, _ := serveLimits(t, server)
	guard := client.Guard(GuardOptions{Logf: quiet})
	use := func(id string, work func(*Hold)) {
		hold, err := guard.Reserve(within(t), usageOf(id))
		must(t, err)
		defer hold.Release()
		if !hold.Allowed || !hold.Decided || hold.Quantity != "100" {
			t.Fatalf("%+v", hold)
		}
		work(hold)
	}
	use("settled", func(hold *Hold) { hold.Settle("7.5", "0.1"); hold.Settle("8", "") })
	use("all", func(hold *Hold) { hold.SettleAll() })
	use("released", func(*Hold) {})
	must(t, guard.Close(within(t)))
	found := map[string]bool{}
	for _, one := range server.calls() {
		found[one] = true
	}
	if !reflect.DeepEqual(found, map[string]bool{
		"reserve settled 100": true, "reserve all 100": true, "reserve released 100": true,
		"settle settled 7.5 0.1": true, "settle all 100 ": true, "release released": true,
	}) {
		t.Fatal(found)
	}
	if _, err := guard.Reserve(within(t), usageOf("late")); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestADenialSaysWhenToTryAgainAndEndsNothing(t *testing.T) {
	server := &limits{decision: &pb.Decision{
		Outcome: pb.DecisionOutcome_DECISION_OUTCOME_DENIED, RetryAfter: durationpb.New(time.Minute),
		Limit: &pb.LimitState{LimitId: "lim"},
	}}
	client, _ := serveLimits(t, server)
	guard := client.Guard(GuardOptions{MostReports: 1, Logf: quiet})
	for i := 0; i < 3; i++ { // each gives its place back
		hold, err := guard.Reserve(within(t), usageOf("r"))
		must(t, err)
		if hold.Allowed || !hold.Decided || *hold.RetryAfter != time.Minute || hold.LimitID != "lim" || hold.Quantity != "0" {
			t.Fatalf("%+v", hold)
		}
		hold.Release()
		hold.Settle("1", "")
	}
	must(t, guard.Close(within(t)))
	if len(server.calls()) != 3 {
		t.Fatal(server.calls())
	}
}

func TestWithoutAnAnswerTheGuardDecides(t *testing.T) {
	for _, failOpen := range []bool{true, false} {
		server := &limits{reserve: func() error { return status.Error(codes.ResourceExhausted, "busy") }}
		client, _ := serveLimits(t, server)
		guard := client.Guard(GuardOptions{FailOpen: failOpen, DecisionTimeout: 30 * time.Millisecond, Logf: quiet})
		hold, err := guard.Reserve(within(t), usageOf("r"))
		must(t, err)
		if hold.Decided || hold.Allowed != failOpen {
			t.Fatalf("%+v", hold)
		}
		hold.Settle("42", "")
		must(t, guard.Close(within(t)))
		expected := "release r" // a try may have been carried out
		if failOpen {
			expected = "event r r 42"
		}
		if calls := server.calls(); !reflect.DeepEqual(calls, []string{expected}) {
			t.Fatal(calls)
		}
	}
}

func TestAMistakeIsNoReasonToFailOpen(t *testing.T) {
	server := &limits{reserve: func() error { return status.Error(codes.InvalidArgument, "no such metric") }}
	client, _ := serveLimits(t, server)
	guard := client.Guard(GuardOptions{FailOpen: true, MostReports: 1, Logf: quiet})
	for i := 0; i < 2; i++ {
		if _, err := guard.Reserve(within(t), usageOf("r")); !errors.Is(err, &Error{Code: codes.InvalidArgument}) {
			t.Fatal(err)
		}
	}
	must(t, guard.Close(within(t)))
}

func TestASettlementIsRepeatedAndBecomesAnEventWhereTheReservationHasEnded(t *testing.T) {
	tries := 0
	server := &limits{decision: granted("100"), settle: func() error {
		if tries++; tries == 1 {
			return status.Error(codes.PermissionDenied, "no role") // an operator gives it
		}
		return status.Error(codes.FailedPrecondition, "released")
	}}
	client, _ := serveLimits(t, server)
	guard := client.Guard(GuardOptions{Logf: quiet})
	hold, err := guard.Reserve(within(t), usageOf("r"))
	must(t, err)
	hold.Settle("9", "")
	must(t, guard.Close(within(t)))
	if calls := server.calls(); tries != 2 || calls[len(calls)-1] != "event r r 9" {
		t.Fatal(tries, calls)
	}
}

func TestAHoldIsExtendedWhileTheWorkLasts(t *testing.T) {
	server := &limits{decision: granted("100")}
	client, _ := serveLimits(t, server)
	guard := client.Guard(GuardOptions{TTL: 30 * time.Millisecond, Logf: quiet})
	hold, err := guard.Reserve(within(t), usageOf("r"))
	must(t, err)
	until(t, "two extensions", func() bool { return len(server.calls()) >= 3 })
	hold.Release()
	must(t, guard.Close(within(t)))
}

func TestReportsAreBoundedAndThoseThatAreLostAreCounted(t *testing.T) {
	server := &limits{decision: granted("100"), settle: func() error { return status.Error(codes.Unavailable, "away") }}
	client, _ := serveLimits(t, server)
	guard := client.Guard(GuardOptions{MostReports: 2, Logf: quiet})
	for _, id := range []string{"a", "b"} {
		hold, err := guard.Reserve(within(t), usageOf(id))
		must(t, err)
		hold.SettleAll()
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := guard.Reserve(short, usageOf("c")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := guard.Close(short); err == nil || !strings.Contains(err.Error(), "2 reports") {
		t.Fatal(err)
	}
}

func TestChecksShareCallsAndAreCached(t *testing.T) {
	server := &limits{}
	client, _ := serveLimits(t, server)
	checks := client.CachedChecks("tokens", CheckOptions{MaxAge: time.Hour, CheckTimeout: limit, MostCached: 150, Logf: quiet})
	if _, isKnown := checks.Cached("good"); isKnown {
		t.Fatal("something is cached")
	}
	ctx := within(t)
	var reading sync.WaitGroup
	for i := 0; i < 150; i++ {
		for _, id := range []string{fmt.Sprintf("good-%d", i), fmt.Sprintf("bad-%d", i)} {
			reading.Add(1)
			go func(id string) {
				defer reading.Done()
				isAllowed, err := checks.MayUse(ctx, id)
				if err != nil || isAllowed != strings.HasPrefix(id, "good") {
					t.Errorf("%s: %v %v", id, isAllowed, err)
				}
			}(id)
		}
	}
	reading.Wait()
	before := len(server.calls())
	if before > 100 {
		t.Fatal(before, "calls for 300 customers")
	}
	if len(checks.cache) != 150 || checks.byAge.Len() != 150 {
		t.Fatal(len(checks.cache))
	}
	last := checks.byAge.Back().Value.(cachedCheck).customerID
	isAllowed, err := checks.MayUse(ctx, last)
	must(t, err)
	if isAllowed != strings.HasPrefix(last, "good") || len(server.calls()) != before {
		t.Fatal(last)
	}
}

func TestChecksWithoutAnAnswerAreStaleThenAsThePolicySays(t *testing.T) {
	for _, failOpen := range []bool{true, false} {
		var failure error
		server := &limits{check: func() error { return failure }}
		client, _ := serveLimits(t, server)
		checks := client.CachedChecks("tokens", CheckOptions{
			FailOpen: failOpen, MaxAge: time.Nanosecond, MaxStale: time.Hour, CheckTimeout: limit, Logf: quiet,
		})
		for _, id := range []string{"good", "bad"} {
			_, err := checks.MayUse(within(t), id)
			must(t, err)
		}
		failure = status.Error(codes.ResourceExhausted, "busy")
		for id, expected := range map[string]bool{"good": true, "bad": false, "unknown": failOpen} {
			isAllowed, err := checks.MayUse(within(t), id)
			if err != nil || isAllowed != expected {
				t.Fatal(id, isAllowed, err)
			}
		}
		failure = status.Error(codes.PermissionDenied, "no role")
		if _, err := checks.MayUse(within(t), "good"); !errors.Is(err, &Error{Code: codes.PermissionDenied}) {
			t.Fatal(err)
		}
	}
}
