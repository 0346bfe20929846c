// Command load measures a usage writer: it reads messages UsageEvent from standard input, each after its length, sends
// them, and prints how long that took. The benchmarks of the repository run it.
//
//	TIDEMARK_SERVER=127.0.0.1:50051 load < events
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"tidemark.dev/api/tidemark"
	pb "tidemark.dev/api/tidemark/v1"
)

// result is what was sent. Seconds end with the last acknowledgement; CPUSeconds are those of the process meanwhile.
type result struct {
	Seconds     float64 `json:"seconds"`
	CPUSeconds  float64 `json:"cpu_seconds"`
	Accepted    int64   `json:"accepted"`
	Transitions int     `json:"transitions"`
}

func main() {
	events, err := read(bufio.NewReader(os.Stdin))
	if err != nil {
		log.Fatal(err)
	}
	found, err := send(context.Background(), events)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func read(input *bufio.Reader) ([]*pb.UsageEvent, error) {
	var events []*pb.UsageEvent
	for {
		length, err := binary.ReadUvarint(input)
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		content := make([]byte, length)
		if _, err := io.ReadFull(input, content); err != nil {
			return nil, err
		}
		event := &pb.UsageEvent{}
		if err := proto.Unmarshal(content, event); err != nil {
			return nil, err
		}
		events = append(events, event)
	}
}

func send(ctx context.Context, events []*pb.UsageEvent) (*result, error) {
	client, err := tidemark.Connect(ctx, "")
	if err != nil {
		return nil, err
	}
	defer client.Close()
	found := &result{}
	writer, err := client.UsageWriter(tidemark.WriterOptions{
		OnOutcome: func(outcome *pb.UsageOutcome) {
			found.Transitions += len(outcome.Transitions) + int(outcome.GetOmitted().GetTransitionCount())
		},
	})
	if err != nil {
		return nil, err
	}
	started, cpu := time.Now(), cpuSeconds()
	for _, event := range events {
		if err := writer.Send(ctx, event); err != nil {
			return nil, err
		}
	}
	if err := writer.Flush(ctx); err != nil {
		return nil, err
	}
	found.Seconds, found.CPUSeconds = time.Since(started).Seconds(), cpuSeconds()-cpu
	if err := writer.Close(ctx); err != nil {
		return nil, err
	}
	counts := writer.Counts()
	found.Accepted = counts.Acknowledged - counts.Duplicates
	return found, nil
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
