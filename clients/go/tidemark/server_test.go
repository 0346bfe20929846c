package tidemark

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tidemark.dev/api/tidemark/v1"
)

// These tests need a real server. tests/clients/go of the repository runs them: TIDEMARK_TEST_SERVER and
// TIDEMARK_TEST_KEY name it, and TIDEMARK_TEST_TIME is its time, in RFC 3339.

// realServer is a client of a real server, and an alert on a metric of the test's own.
type realServer struct {
	*Client
	address, key, metric string
	alertID              string
	now                  time.Time
}

func aRealServer(t *testing.T, thresholds ...string) *realServer {
	t.Helper()
	address := os.Getenv("TIDEMARK_TEST_SERVER")
	if address == "" {
		t.Skip("TIDEMARK_TEST_SERVER names no server")
	}
	now, err := time.Parse(time.RFC3339, os.Getenv("TIDEMARK_TEST_TIME"))
	must(t, err)
	key := os.Getenv("TIDEMARK_TEST_KEY")
	server := &realServer{address: address, key: key, metric: "calls-" + t.Name(), now: now}
	server.Client = connected(t, address, WithAPIKey(key), WithTimeout(limit))
	if len(thresholds) == 0 {
		thresholds = []string{"1000000000"}
	}
	alert := &pb.Alert{
		DisplayName: "Calls",
		Scope:       &pb.AlertScope{Target: &pb.AlertScope_AllCustomers{AllCustomers: &pb.AllCustomersScope{}}},
		Condition: &pb.Alert_UsageThresholdReached{
			UsageThresholdReached: &pb.UsageThresholdReachedCondition{MetricId: server.metric},
		},
	}
	for _, value := range thresholds {
		alert.Thresholds = append(alert.Thresholds, &pb.Threshold{Value: value})
	}
	created, err := server.Alerts.CreateAlert(within(t), &pb.CreateAlertRequest{Alert: alert})
	must(t, err)
	server.alertID = created.GetAlert().GetAlertId()
	return server
}

func (s *realServer) event(id string) *pb.UsageEvent {
	made := NewEvent("acme", s.metric, "1")
	made.EventId, made.EventTime = s.metric+id, timestamppb.New(s.now)
	return made
}

func (s *realServer) sendAll(t *testing.T, writer *UsageWriter, prefix string, count int) {
	t.Helper()
	for i := 0; i < count; i++ {
		must(t, writer.Send(within(t), s.event(fmt.Sprintf("%s-%d", prefix, i))))
	}
}

// counted is the usage that the alert sees.
func (s *realServer) counted(t *testing.T) string {
	t.Helper()
	answer, err := s.Alerts.ListCustomerAlerts(within(t), &pb.ListCustomerAlertsRequest{CustomerId: "acme"})
	must(t, err)
	sum := new(big.Rat)
	for _, one := range answer.CustomerAlerts {
		if one.GetAlert().GetAlertId() != s.alertID {
			continue
		}
		for _, alert := range one.Gauges {
			value, ok := new(big.Rat).SetString(alert.GetGauge().GetValue())
			if !ok {
				t.Fatal(alert)
			}
			sum.Add(sum, value)
		}
	}
	return sum.RatString()
}

func TestServerCountsEveryEventAndCrossingsArrive(t *testing.T) {
	server := aRealServer(t, "100", "250")
	var levels []string
	writer := writerOf(t, server.Client, WriterOptions{
		MaxBatchEvents: 7, OnCrossing: func(one *pb.Transition) { levels = append(levels, one.Level) },
	})
	server.sendAll(t, writer, "e", 250)
	must(t, writer.Flush(within(t)))
	if counts := writer.Counts(); counts != (WriterCounts{Acknowledged: 250}) {
		t.Fatal(counts)
	}
	if one := server.counted(t); one != "250" || !reflect.DeepEqual(levels, []string{"100", "250"}) {
		t.Fatal(one, levels)
	}
	must(t, writer.Close(within(t)))
}

func TestServerRejectsABadEventAndNoGoodOne(t *testing.T) {
	server := aRealServer(t)
	var silent []string
	writer := writerOf(t, server.Client, WriterOptions{
		OnRejected: func(event *pb.UsageEvent, err *Error) { silent = append(silent, event.EventId+" "+err.Code.String()) },
	})
	submit := func(event *pb.UsageEvent) *Ack {
		ack, err := writer.Submit(within(t), event)
		must(t, err)
		return ack
	}
	good, again := submit(server.event("good")), submit(server.event("good"))
	other, much := server.event("good"), server.event("much")
	other.Quantity, much.Quantity = "2", "much"
	conflict, bad := submit(other), submit(much)
	anonymous := server.event("silent")
	anonymous.CustomerId = ""
	must(t, writer.Send(within(t), anonymous))
	must(t, writer.Flush(within(t)))
	outcome, err := good.Wait(within(t))
	must(t, err)
	if outcome.Accepted != 1 || outcome.Duplicates != 1 {
		t.Fatal(outcome)
	}
	_, err = again.Wait(within(t))
	must(t, err)
	var wrong *Error
	if _, err := bad.Wait(within(t)); !errors.As(err, &wrong) || wrong.Code != codes.InvalidArgument ||
		len(wrong.Violations) != 1 {
		t.Fatal(err)
	}
	target := &Error{Code: codes.AlreadyExists, Reason: "EVENT_CONFLICT"}
	if _, err := conflict.Wait(within(t)); !errors.Is(err, target) {
		t.Fatal(err)
	}
	if one := server.counted(t); one != "1" || !reflect.DeepEqual(silent, []string{anonymous.EventId + " InvalidArgument"}) {
		t.Fatal(one, silent)
	}
	must(t, writer.Close(within(t)))
	if counts := writer.Counts(); counts != (WriterCounts{Acknowledged: 2, Duplicates: 1, Rejected: 3}) {
		t.Fatal(counts)
	}
}

func TestServerCountsOnceThroughCutConnections(t *testing.T) {
	server := aRealServer(t)
	line := newCable(t, server.address)
	interruptions := 0
	cut := connected(t, line.address, WithAPIKey(server.key))
	writer := writerOf(t, cut, WriterOptions{
		MaxBatchEvents: 20, InFlight: 4, OnInterruption: func(string) { interruptions++ },
	})
	for part := 0; part < 5; part++ {
		before := writer.Counts().Acknowledged
		server.sendAll(t, writer, fmt.Sprint(part), 200)
		until(t, "an answer", func() bool { return writer.Counts().Acknowledged > before })
		line.cut()
	}
	must(t, writer.Close(within(t)))
	if one := server.counted(t); one != "1000" || writer.Counts().Acknowledged != 1_000 || interruptions == 0 {
		t.Fatal(one, writer.Counts(), interruptions)
	}
}

// TestServerRestarts sends usage while the server drains and another one follows it: the test of the repository does
// that when it reads the line.
func TestServerRestarts(t *testing.T) {
	server := aRealServer(t)
	writer := writerOf(t, server.Client, WriterOptions{MaxBatchEvents: 10, InFlight: 2})
	server.sendAll(t, writer, "before", 100)
	must(t, writer.Flush(within(t)))
	fmt.Println("restart the server")
	interrupted := os.Getenv("TIDEMARK_TEST_RESTARTED")
	for i := 0; ; i++ {
		must(t, writer.Send(within(t), server.event(fmt.Sprintf("meanwhile-%d", i))))
		must(t, writer.Flush(within(t)))
		if _, err := os.Stat(interrupted); err == nil && writer.Counts().Acknowledged > int64(i) {
			must(t, writer.Close(within(t)))
			if one := server.counted(t); one != fmt.Sprint(101+i) {
				t.Fatal(one, i)
			}
			return
		}
	}
}

func TestServerRefusesAWrongKeyWithATypedError(t *testing.T) {
	server := aRealServer(t)
	stranger := connected(t, server.address, WithAPIKey("tmk_unknown"))
	writer := writerOf(t, stranger, WriterOptions{})
	ack, err := writer.Submit(within(t), server.event("e"))
	must(t, err)
	for _, err := range []error{
		func() error { _, err := ack.Wait(within(t)); return err }(),
		writer.Send(within(t), server.event("e")),
		writer.Close(within(t)),
		stranger.Watcher(WatchOptions{}).Run(within(t), func(context.Context, *pb.Notification) error { return nil }),
	} {
		var found *Error
		if !errors.As(err, &found) || found.Code != codes.Unauthenticated || found.Reason == "" {
			t.Fatal(err)
		}
	}
	_, err = server.Alerts.GetAlert(within(t), &pb.GetAlertRequest{AlertId: "alr_unknown"})
	var found *Error
	if !errors.As(err, &found) || found.Reason != "ALERT_NOT_FOUND" || found.Metadata["alert_id"] != "alr_unknown" ||
		found.RequestID == "" {
		t.Fatal(err)
	}
}

func TestServerNotifiesOnceThroughARestartOfTheProgramAndCuts(t *testing.T) {
	server := aRealServer(t, "1", "2", "3", "4", "5", "6")
	line := newCable(t, server.address)
	tokens := FileTokens(filepath.Join(t.TempDir(), "token"))
	stop := errors.New("stop")
	options := WatchOptions{AlertIDs: []string{server.alertID}, Tokens: tokens, OnInterruption: func(string) {}}
	err := server.Watcher(options).Positions(within(t), func(ctx context.Context, one Position) error {
		must(t, tokens.Save(ctx, one.ResumeToken)) // the present position, so that nothing after it is missed
		return stop
	})
	if err != stop {
		t.Fatal(err)
	}
	writer := writerOf(t, server.Client, WriterOptions{Linger: -1, InFlight: 1})
	reach := func(id string) { // a threshold in a commit of its own
		must(t, writer.Send(within(t), server.event(id)))
		must(t, writer.Flush(within(t)))
	}
	reach("1")
	var levels []string
	seen := map[string]bool{}
	for run := 0; run < 3; run++ { // each is the program after a restart
		client := connected(t, line.address, WithAPIKey(server.key))
		err := client.Watcher(options).Run(within(t), func(_ context.Context, one *pb.Notification) error {
			if len(levels) == 2 && run == 0 || len(levels) == 4 && run == 1 {
				return stop // it comes again
			}
			if seen[one.NotificationId] {
				t.Error("again:", one.NotificationId)
			}
			seen[one.NotificationId] = true
			levels = append(levels, one.GetEvaluation().GetTransitions()[0].GetLevel())
			if len(levels) == 6 {
				return stop
			}
			line.cut() // a new stream gets the next one
			reach(fmt.Sprint(len(levels) + 1))
			return nil
		})
		if err != stop {
			t.Fatal(err)
		}
		must(t, client.Close())
	}
	if !reflect.DeepEqual(levels, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Fatal(levels)
	}
	must(t, writer.Close(within(t)))
}

func TestServerEnforcesALimit(t *testing.T) {
	server := aRealServer(t)
	_, err := server.Accounts.PutMetric(within(t), &pb.PutMetricRequest{Metric: &pb.Metric{MetricId: server.metric}})
	must(t, err)
	_, err = server.Accounts.PutCustomer(within(t), &pb.PutCustomerRequest{Customer: &pb.Customer{CustomerId: "acme"}})
	must(t, err)
	_, err = server.Accounts.PutLimit(within(t), &pb.PutLimitRequest{Limit: &pb.Limit{
		LimitId:     "lim-" + t.Name(),
		Holder:      &pb.Limit_Customer{Customer: &pb.CustomerScope{CustomerId: "acme"}},
		Access:      &pb.Limit_Quantity{Quantity: &pb.QuantityAccess{MetricId: server.metric}},
		Amount:      "10",
		Enforcement: pb.LimitEnforcement_LIMIT_ENFORCEMENT_HARD,
	}})
	must(t, err)
	guard := server.Guard(GuardOptions{DecisionTimeout: limit, TryTimeout: limit, Logf: t.Logf})
	reserve := func(quantity string) *Hold {
		hold, err := guard.Reserve(within(t), Usage{CustomerID: "acme", MetricID: server.metric, Quantity: quantity})
		must(t, err)
		return hold
	}
	first := reserve("8")
	if refused := reserve("3"); !first.Allowed || refused.Allowed || refused.LimitID != "lim-"+t.Name() {
		t.Fatalf("%+v %+v", first, refused)
	}
	first.Settle("4.5", "")
	given := reserve("5.5")
	for !given.Allowed { // until the settlement has come
		given = reserve("5.5")
	}
	given.Release()
	must(t, guard.Close(within(t)))
	checks := server.CachedChecks(server.metric, CheckOptions{CheckTimeout: limit})
	if isAllowed, err := checks.MayUse(within(t), "acme"); err != nil || !isAllowed {
		t.Fatal(isAllowed, err)
	}
	if one := server.counted(t); one != "9/2" {
		t.Fatal(one)
	}
}
