package tidemark

import (
	"fmt"
	"log"
	"time"

	pb "tidemark.dev/api/tidemark/v1"
)

// WriterOptions say how a usage writer works. A zero value means the value that is named first.
type WriterOptions struct {
	// MaxBatchEvents: 500, at most 5,000; MaxBatchBytes: 512 KiB, at most 2 MiB. Of one message.
	MaxBatchEvents, MaxBatchBytes int
	// Linger: 10 ms. So long an event waits for others of its message; below zero: not at all.
	Linger time.Duration
	// MaxPendingEvents: 100,000; MaxPendingBytes: 64 MiB. Of events in memory that are not acknowledged; beyond, Send
	// and Submit wait.
	MaxPendingEvents, MaxPendingBytes int
	// Streams: 4, at most 64, over which usage is sent. All events of one customer go over the same.
	Streams int
	// InFlight: 8, at most 64. Messages of one stream that are sent and not yet answered.
	InFlight int
	// Patience: 0, which is without end. So long after the last answer, a writer whose stream is broken fails.
	Patience time.Duration
	// IncludeGauges and MaxAnswerBytes (16 MiB): as in UsageBatch.
	IncludeGauges  bool
	MaxAnswerBytes int

	// The writer calls these functions one at a time, and waits for them: they must be short, and must not call the
	// writer.

	// OnCrossing gets each threshold that was reached or resolved.
	OnCrossing func(*pb.Transition)
	// OnOutcome gets the answer to each message.
	OnOutcome func(*pb.UsageOutcome)
	// OnRejected gets each event that the server does not count, and why, unless the event has an Ack. Without this
	// function it is logged.
	OnRejected func(*pb.UsageEvent, *Error)
	// OnInterruption gets a sentence whenever a stream broke. Without this function it is logged.
	OnInterruption func(string)

	silence, farewell, retryPause, firstPause time.Duration // other ones in tests
}

// WriterCounts are what a writer has done.
type WriterCounts struct {
	// Acknowledged events are counted by the server, now or before; Duplicates are among them.
	Acknowledged, Duplicates int64
	// Rejected events are not counted.
	Rejected int64
	// Pending events are taken, and neither acknowledged nor rejected.
	Pending int64
	// Resent events were sent again after interruptions.
	Resent int64
}

func (o WriterOptions) complete() (WriterOptions, error) {
	for _, one := range []struct {
		name        string
		value       *int
		unset, most int
	}{
		{"MaxBatchEvents", &o.MaxBatchEvents, 500, maxBatchEvents},
		{"MaxBatchBytes", &o.MaxBatchBytes, maxBatchBytes / 4, maxBatchBytes},
		{"MaxPendingEvents", &o.MaxPendingEvents, 100_000, 0},
		{"MaxPendingBytes", &o.MaxPendingBytes, 64 << 20, 0},
		{"Streams", &o.Streams, 4, 64},
		{"InFlight", &o.InFlight, 8, 64},
		{"MaxAnswerBytes", &o.MaxAnswerBytes, 16 << 20, 64 << 20},
	} {
		if *one.value == 0 {
			*one.value = one.unset
		}
		if *one.value < 0 {
			return o, fmt.Errorf("tidemark: %s is %d: it is 0 or more", one.name, *one.value)
		}
		if one.most > 0 && *one.value > one.most {
			return o, fmt.Errorf("tidemark: %s is %d: it is at most %d", one.name, *one.value, one.most)
		}
	}
	for _, one := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&o.Linger, 10 * time.Millisecond},
		{&o.silence, 60 * time.Second}, // twice the interval of heartbeats
		{&o.farewell, 2 * time.Second},
		{&o.retryPause, 500 * time.Millisecond},
		{&o.firstPause, firstPause},
	} {
		if *one.value == 0 {
			*one.value = one.unset
		}
	}
	if o.Patience < 0 {
		return o, fmt.Errorf("tidemark: Patience is %v: it is 0 or more", o.Patience)
	}
	if o.OnRejected == nil {
		o.OnRejected = func(event *pb.UsageEvent, err *Error) {
			log.Printf("tidemark: usage event %s of %s was rejected: %v", event.EventId, event.CustomerId, err)
		}
	}
	if o.OnInterruption == nil {
		o.OnInterruption = func(sentence string) {
			log.Printf("tidemark: usage is not acknowledged now, and will be sent again: %s", sentence)
		}
	}
	return o, nil
}
