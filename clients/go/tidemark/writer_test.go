package tidemark

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "tidemark.dev/api/tidemark/v1"
)

func TestMessagesAreFilledAndEveryEventIsAcknowledged(t *testing.T) {
	server := serveScripts(t, answersAll)
	writer := writerOf(t, connected(t, server.address), WriterOptions{MaxBatchEvents: 7, Linger: time.Hour})
	sendAll(t, writer, "e", 20)
	must(t, writer.Flush(within(t)))
	if counts := writer.Counts(); counts != (WriterCounts{Acknowledged: 20}) {
		t.Fatal(counts)
	}
	must(t, writer.Close(within(t)))
	seen := server.seen()
	if len(seen) != 3 || len(seen[0]) != 7 || len(seen[2]) != 6 || seen[2][5] != "e-19" {
		t.Fatal(seen)
	}
	if server.streams != 1 {
		t.Fatal(server.streams, "streams, although the events are of one customer")
	}
}

func TestAnEventWaitsForOthersOnlyAsLongAsItLingers(t *testing.T) {
	for _, linger := range []time.Duration{-1, time.Millisecond} {
		server := serveScripts(t, answersAll)
		writer := writerOf(t, connected(t, server.address), WriterOptions{Linger: linger})
		ack, err := writer.Submit(within(t), event("alone"))
		must(t, err)
		outcome, err := ack.Wait(within(t))
		must(t, err)
		if outcome.Accepted != 1 {
			t.Fatal(outcome)
		}
		must(t, writer.Close(within(t)))
	}
}

func TestAMessageIsSentWhenItsBytesAreFull(t *testing.T) {
	server := serveScripts(t, answersAll)
	writer := writerOf(t, connected(t, server.address), WriterOptions{MaxBatchBytes: 3_900, Linger: time.Hour})
	for i := 0; i < 12; i++ {
		must(t, writer.Send(within(t), event(fmt.Sprint(i, strings.Repeat("x", 900)))))
	}
	must(t, writer.Close(within(t)))
	for _, one := range server.seen() {
		if len(one) != 4 {
			t.Fatal(len(one))
		}
	}
}

func TestASlowServerMakesTheCallerWaitWithBoundedMemory(t *testing.T) {
	for _, options := range []WriterOptions{
		{MaxBatchEvents: 5, InFlight: 2, MaxPendingEvents: 20},
		{MaxBatchEvents: 5, InFlight: 2, MaxPendingBytes: 2_000},
	} {
		gate := make(chan struct{})
		server := serveScripts(t, held(gate))
		writer := writerOf(t, connected(t, server.address), options)
		taken := 0
		for ; taken < 1_000; taken++ {
			short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			err := writer.Send(short, event(fmt.Sprintf("e-%d", taken)))
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				break
			}
		}
		if pending := int(writer.Counts().Pending); pending != taken || taken < 15 || taken > 25 {
			t.Fatal(taken, pending)
		}
		close(gate)
		sendAll(t, writer, "more", 100)
		must(t, writer.Close(within(t)))
		if counts := writer.Counts(); counts.Acknowledged != int64(taken)+100 || counts.Pending != 0 {
			t.Fatal(counts)
		}
	}
}

func TestCutConnectionsLoseNothingAndKeepTheOrder(t *testing.T) {
	server := serveScripts(t, answersAll)
	line := newCable(t, server.address)
	interruptions := 0
	writer := writerOf(t, connected(t, line.address), WriterOptions{
		MaxBatchEvents: 10, InFlight: 4, OnInterruption: func(string) { interruptions++ },
	})
	for part := 0; part < 5; part++ {
		sendAll(t, writer, fmt.Sprint(part), 100)
		before := writer.Counts().Acknowledged
		until(t, "an answer", func() bool { return writer.Counts().Acknowledged > before || writer.Counts().Pending == 0 })
		line.cut()
	}
	must(t, writer.Close(within(t)))
	if counts := writer.Counts(); counts.Acknowledged != 500 || counts.Pending != 0 {
		t.Fatal(counts)
	}
	var first []string
	known := map[string]bool{}
	for _, message := range server.seen() {
		for _, id := range message {
			if !known[id] {
				known[id] = true
				first = append(first, id)
			}
		}
	}
	for at, id := range first {
		if id != fmt.Sprintf("%d-%d", at/100, at%100) {
			t.Fatal(at, id)
		}
	}
	if len(first) != 500 {
		t.Fatal(len(first))
	}
}

func TestAServerThatGoesAwayGetsTheRestOnAnotherStream(t *testing.T) {
	for _, ends := range []bool{true, false} {
		sent := make(chan struct{})
		goes := func(stream pb.AlertService_EvaluateUsageServer) error {
			<-sent
			for i := 0; i < 2; i++ {
				request, err := stream.Recv()
				if err != nil {
					return err
				}
				if err := stream.Send(answer(request.Batch)); err != nil {
					return err
				}
			}
			if err := stream.Send(&pb.EvaluateUsageResponse{GoingAway: true}); err != nil {
				return err
			}
			if !ends { // it does not end the stream as it should
				<-stream.Context().Done()
			}
			return nil
		}
		server := serveScripts(t, goes, answersAll)
		client := connected(t, server.address)
		sentences := make(chan string, 100)
		options := WriterOptions{
			MaxBatchEvents: 1, InFlight: 3, farewell: 20 * time.Millisecond,
			OnInterruption: func(one string) { sentences <- one },
		}
		writer := writerOf(t, client, options)
		sendAll(t, writer, "e", 10)
		close(sent)
		must(t, writer.Close(within(t)))
		if counts := writer.Counts(); counts.Acknowledged != 10 {
			t.Fatal(counts)
		}
		if one := <-sentences; one != "the server is shutting down or restarting" || server.streams != 2 {
			t.Fatal(one, server.streams)
		}
	}
}

func TestASilentServerIsLeft(t *testing.T) {
	server := serveScripts(t, held(nil), answersAll)
	sentences := make(chan string, 100)
	writer := writerOf(t, connected(t, server.address), WriterOptions{
		MaxBatchEvents: 10, Linger: time.Hour, silence: 50 * time.Millisecond,
		OnInterruption: func(one string) { sentences <- one },
	})
	sendAll(t, writer, "e", 10)
	must(t, writer.Close(within(t)))
	if one := <-sentences; one != "the server was silent for 50ms" || writer.Counts().Resent != 10 {
		t.Fatal(one, writer.Counts())
	}
}

func TestAClosedWriterTakesNothingAndAnUnusedOneOpensNoStream(t *testing.T) {
	server := serveScripts(t, answersAll)
	writer := writerOf(t, connected(t, server.address), WriterOptions{})
	for i := 0; i < 2; i++ {
		must(t, writer.Close(within(t)))
	}
	if err := writer.Send(within(t), event("e")); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if server.streams != 0 {
		t.Fatal(server.streams)
	}
}

func TestGoroutinesShareAWriterAndEachFlushWaitsForItsOwnEvents(t *testing.T) {
	server := serveScripts(t, answersAll)
	client := connected(t, server.address)
	writer := writerOf(t, client, WriterOptions{MaxBatchEvents: 20, MaxPendingEvents: 100})
	ctx := within(t)
	var sending sync.WaitGroup
	for part := 0; part < 8; part++ {
		sending.Add(1)
		go func(part int) {
			defer sending.Done()
			var acks []*Ack
			for i := 0; i < 200; i++ {
				one := event(fmt.Sprintf("%d-%d", part, i))
				one.CustomerId = fmt.Sprint(part)
				ack, err := writer.Submit(ctx, one)
				if err != nil {
					t.Error(err)
					return
				}
				acks = append(acks, ack)
			}
			if err := writer.Flush(ctx); err != nil {
				t.Error(err)
			}
			for _, ack := range acks {
				select {
				case <-ack.Done():
				default:
					t.Error("Flush returned before an event was answered")
					return
				}
			}
		}(part)
	}
	sending.Wait()
	must(t, writer.Close(ctx))
	if counts := writer.Counts(); counts != (WriterCounts{Acknowledged: 1_600}) {
		t.Fatal(counts)
	}
	next := map[string]int{}
	for _, message := range server.seen() {
		for _, id := range message {
			var part, number int
			if _, err := fmt.Sscanf(id, "%d-%d", &part, &number); err != nil || next[fmt.Sprint(part)] != number {
				t.Fatal(id, next)
			}
			next[fmt.Sprint(part)]++
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	client := connected(t, "127.0.0.1:1")
	for _, wrong := range []WriterOptions{
		{MaxBatchEvents: 5_001}, {MaxBatchEvents: -1}, {InFlight: 65}, {Streams: 65}, {Patience: -1},
	} {
		if _, err := client.UsageWriter(wrong); err == nil {
			t.Fatal(wrong)
		}
	}
}

func TestAnEventIsCompletedAndAHugeOneIsRefused(t *testing.T) {
	server := serveScripts(t, answersAll)
	writer := writerOf(t, connected(t, server.address), WriterOptions{})
	bare := &pb.UsageEvent{CustomerId: "acme"}
	must(t, writer.Send(within(t), bare))
	if bare.EventId == "" || bare.EventTime == nil || bare.EventId == NewEventID() {
		t.Fatal(bare)
	}
	if err := writer.Send(within(t), event(strings.Repeat("x", 1<<20))); err == nil {
		t.Fatal("a huge event was taken")
	}
	if err := writer.Send(within(t), event("\xff")); err == nil {
		t.Fatal("an event that is no text was taken")
	}
	must(t, writer.Close(within(t)))
	if counts := writer.Counts(); counts.Acknowledged != 1 {
		t.Fatal(counts)
	}
}

func TestAMessageIsEncodedAsProtobufEncodesIt(t *testing.T) {
	for _, size := range []int{0, 1, 100, 20_000} {
		for _, options := range []answerOptions{{}, {true, 1 << 24}} {
			events := []*pb.UsageEvent{event("e"), event(strings.Repeat("x", size)), {}}
			var contents [][]byte
			for _, one := range events {
				content, err := proto.Marshal(one)
				must(t, err)
				contents = append(contents, content)
			}
			expected := &pb.EvaluateUsageRequest{Batch: &pb.UsageBatch{
				BatchId: "b", Events: events, IncludeGauges: options.includeGauges, MaxAnswerBytes: int32(options.maxBytes),
			}}
			found := &pb.EvaluateUsageRequest{}
			must(t, proto.Unmarshal(encodedRequest("b", contents, options), found))
			if !proto.Equal(found, expected) {
				t.Fatal(size, options)
			}
		}
	}
}
