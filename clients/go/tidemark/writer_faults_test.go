package tidemark

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "tidemark.dev/api/tidemark/v1"
)

func TestAnEventThatBreaksTheServerIsRejectedAlone(t *testing.T) {
	breaks := func(batch *pb.UsageBatch) (*pb.UsageOutcome, error) {
		for _, one := range batch.Events {
			if one.EventId == "e-13" {
				return nil, status.Error(codes.Internal, "it failed")
			}
		}
		return accepted(batch), nil
	}
	server := serveScripts(t, func(stream pb.AlertService_EvaluateUsageServer) error {
		for {
			request, err := stream.Recv()
			if err != nil {
				return nil
			}
			outcome, err := breaks(request.Batch)
			if err != nil {
				return err
			}
			if err := stream.Send(&pb.EvaluateUsageResponse{Outcome: outcome}); err != nil {
				return err
			}
		}
	})
	server.one = breaks
	writer := writerOf(t, connected(t, server.address), WriterOptions{MaxBatchEvents: 10})
	var acks []*Ack
	for i := 0; i < 40; i++ {
		ack, err := writer.Submit(within(t), event(fmt.Sprintf("e-%d", i)))
		must(t, err)
		acks = append(acks, ack)
	}
	must(t, writer.Close(within(t)))
	for i, ack := range acks {
		_, err := ack.Wait(within(t))
		if isBad := i == 13; isBad != errors.Is(err, &Error{Code: codes.Internal}) || (err == nil) == isBad {
			t.Fatal(i, err)
		}
	}
	if counts := writer.Counts(); counts.Acknowledged != 39 || counts.Rejected != 1 || counts.Pending != 0 {
		t.Fatal(counts)
	}
}

func TestAnEventThatTheServerCouldNotRecordIsSentAgain(t *testing.T) {
	var mu sync.Mutex
	tries := map[string]int{}
	server := serveScripts(t, func(stream pb.AlertService_EvaluateUsageServer) error {
		for {
			request, err := stream.Recv()
			if err != nil {
				return nil
			}
			outcome := &pb.UsageOutcome{BatchId: request.Batch.BatchId}
			mu.Lock()
			for at, one := range request.Batch.Events {
				id := one.EventId
				if tries[id]++; id == "never" || (id == "late" && tries[id] < 3) {
					failed := &spb.Status{Code: int32(codes.Internal), Message: "not recorded"}
					outcome.Rejected = append(outcome.Rejected, &pb.Rejection{Index: int32(at), Status: failed})
				} else {
					outcome.Accepted++
				}
			}
			mu.Unlock()
			if err := stream.Send(&pb.EvaluateUsageResponse{Outcome: outcome}); err != nil {
				return err
			}
		}
	})
	var rejected []string
	writer := writerOf(t, connected(t, server.address), WriterOptions{
		retryPause: time.Nanosecond,
		OnRejected: func(event *pb.UsageEvent, err *Error) { rejected = append(rejected, event.EventId+": "+err.Message) },
	})
	late, err := writer.Submit(within(t), event("late"))
	must(t, err)
	must(t, writer.Send(within(t), event("never")))
	must(t, writer.Send(within(t), event("good")))
	must(t, writer.Flush(within(t))) // it waits for the repetitions, too
	if _, err := late.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rejected, []string{"never: not recorded"}) {
		t.Fatal(rejected)
	}
	if !reflect.DeepEqual(tries, map[string]int{"late": 3, "never": 3, "good": 1}) {
		t.Fatal(tries)
	}
	must(t, writer.Close(within(t)))
	if counts := writer.Counts(); counts != (WriterCounts{Acknowledged: 2, Rejected: 1}) {
		t.Fatal(counts)
	}
}

func TestAnErrorThatStaysEndsTheWriter(t *testing.T) {
	server := serveScripts(t, func(pb.AlertService_EvaluateUsageServer) error {
		return status.Error(codes.Unauthenticated, "no such key")
	})
	writer := writerOf(t, connected(t, server.address), WriterOptions{})
	ack, err := writer.Submit(within(t), event("e"))
	must(t, err)
	wrongKey := &Error{Code: codes.Unauthenticated}
	if _, err := ack.Wait(within(t)); !errors.Is(err, wrongKey) {
		t.Fatal(err)
	}
	if err := writer.Send(within(t), event("e")); !errors.Is(err, wrongKey) {
		t.Fatal(err)
	}
	if err := writer.Flush(within(t)); !errors.Is(err, wrongKey) {
		t.Fatal(err)
	}
	for i := 0; i < 2; i++ {
		if err := writer.Close(within(t)); !errors.Is(err, wrongKey) {
			t.Fatal(err)
		}
	}
}

func TestUsageThatNoServerTakesIsReported(t *testing.T) {
	away := connected(t, "127.0.0.1:1")
	patient := writerOf(t, away, WriterOptions{})
	impatient := writerOf(t, away, WriterOptions{Patience: time.Nanosecond})
	for _, writer := range []*UsageWriter{patient, impatient} {
		ack, err := writer.Submit(within(t), event("e"))
		must(t, err)
		ended, cancel := context.WithCancel(context.Background())
		if writer == patient {
			cancel()
		}
		if err := writer.Close(ended); !errors.Is(err, ErrConnectionLost) || status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		cancel()
		if _, err := ack.Wait(within(t)); !errors.Is(err, ErrConnectionLost) {
			t.Fatal(err)
		}
	}
}

func TestAWriterWhoseClientIsClosedFails(t *testing.T) {
	server := serveScripts(t, held(nil))
	client := connected(t, server.address)
	writer := writerOf(t, client, WriterOptions{})
	ack, err := writer.Submit(within(t), event("e"))
	must(t, err)
	until(t, "a stream", func() bool { return len(server.seen()) == 0 && writer.Counts().Pending == 1 })
	client.Close()
	if _, err := ack.Wait(within(t)); !errors.Is(err, ErrConnectionLost) {
		t.Fatal(err)
	}
	if err := writer.Close(within(t)); !errors.Is(err, ErrConnectionLost) {
		t.Fatal(err)
	}
}
