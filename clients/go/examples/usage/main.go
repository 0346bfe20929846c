// Command usage sends usage of one customer to a server, prints each threshold that it reaches, and waits for the
// notifications of these.
//
//	go run ./examples/usage -server 127.0.0.1:50051 -customer acme -events 1200
//
// TIDEMARK_API_KEY has the API key, where the server asks for one; it needs the role editor.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"tidemark.dev/api/tidemark"
	pb "tidemark.dev/api/tidemark/v1"
)

func main() {
	server := flag.String("server", "", "HOST:PORT; empty: TIDEMARK_SERVER, or else "+tidemark.DefaultAddress)
	customer := flag.String("customer", "acme", "whose usage it is")
	events := flag.Int("events", 1_200, "how many uses are sent")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *server, *customer, *events); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server, customer string, events int) error {
	client, err := tidemark.Connect(ctx, server, tidemark.WithUserAgent("example/1"))
	if err != nil {
		return err
	}
	defer client.Close()
	alertID, err := createAlert(ctx, client, customer)
	if err != nil {
		return err
	}

	reached := make(chan string, 16)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	begun := make(chan struct{})
	go func() { watched <- watch(watching, client, alertID, begun, reached) }()
	select {
	case <-begun:
	case err := <-watched:
		return err
	}

	crossings, err := send(ctx, client, customer, events)
	if err != nil {
		return err
	}
	for i := 0; i < crossings; i++ {
		select {
		case one := <-reached:
			fmt.Println("notified:", one)
		case err := <-watched:
			return err
		}
	}
	return nil
}

// createAlert watches the usage of the customer.
func createAlert(ctx context.Context, client *tidemark.Client, customer string) (string, error) {
	created, err := client.Alerts.CreateAlert(ctx, &pb.CreateAlertRequest{Alert: &pb.Alert{
		DisplayName: "API calls of " + customer,
		Scope: &pb.AlertScope{Target: &pb.AlertScope_Customer{
			Customer: &pb.CustomerScope{CustomerId: customer},
		}},
		Condition: &pb.Alert_UsageThresholdReached{
			UsageThresholdReached: &pb.UsageThresholdReachedCondition{MetricId: "api_calls"},
		},
		Thresholds: []*pb.Threshold{{Value: "500"}, {Value: "1000"}},
	}})
	return created.GetAlert().GetAlertId(), err
}

// send sends the events, and returns how many thresholds they reached.
func send(ctx context.Context, client *tidemark.Client, customer string, events int) (int, error) {
	crossings := 0
	writer, err := client.UsageWriter(tidemark.WriterOptions{
		OnCrossing: func(one *pb.Transition) {
			crossings++
			fmt.Printf("reached: %s %s\n", one.AlertDisplayName, one.Level)
		},
	})
	if err != nil {
		return 0, err
	}
	for i := 0; i < events; i++ {
		if err := writer.Send(ctx, tidemark.NewEvent(customer, "api_calls", "1")); err != nil {
			return 0, err
		}
	}
	ending, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := writer.Close(ending); err != nil {
		return 0, err
	}
	fmt.Printf("%d events are counted\n", writer.Counts().Acknowledged)
	return crossings, nil
}

// watch passes on what is reached. begun is closed when nothing can be missed any longer.
func watch(
	ctx context.Context, client *tidemark.Client, alertID string, begun chan<- struct{}, reached chan<- string,
) error {
	isFirst := true
	watcher := client.Watcher(tidemark.WatchOptions{AlertIDs: []string{alertID}})
	return watcher.Positions(ctx, func(_ context.Context, position tidemark.Position) error {
		if isFirst {
			isFirst = false
			close(begun)
		}
		if position.Notification == nil {
			return nil
		}
		for _, one := range position.Notification.GetEvaluation().GetTransitions() {
			reached <- one.Level
		}
		return nil
	})
}
