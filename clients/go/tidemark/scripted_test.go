package tidemark

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "tidemark.dev/api/tidemark/v1"
)

// limit is of everything that a test waits for.
const limit = time.Minute

// script is what a server does with one stream of usage.
type script func(stream pb.AlertService_EvaluateUsageServer) error

// scripted is a server whose n-th stream follows the n-th script; all further streams follow the last one.
type scripted struct {
	pb.UnimplementedAlertServiceServer
	address string
	scripts []script
	one     func(*pb.UsageBatch) (*pb.UsageOutcome, error) // EvaluateUsageBatch
	watch   func(*pb.WatchNotificationsRequest, pb.AlertService_WatchNotificationsServer) error

	mu      sync.Mutex
	streams int
	ids     [][]string // the ids of the events of each message
}

func (s *scripted) EvaluateUsage(stream pb.AlertService_EvaluateUsageServer) error {
	s.mu.Lock()
	at := s.streams
	if at >= len(s.scripts) {
		at = len(s.scripts) - 1
	}
	s.streams++
	s.mu.Unlock()
	return s.scripts[at](&recorded{stream, s})
}

func (s *scripted) EvaluateUsageBatch(
	_ context.Context, request *pb.EvaluateUsageBatchRequest,
) (*pb.EvaluateUsageBatchResponse, error) {
	outcome, err := s.one(request.Batch)
	return &pb.EvaluateUsageBatchResponse{Outcome: outcome}, err
}

func (s *scripted) WatchNotifications(
	request *pb.WatchNotificationsRequest, stream pb.AlertService_WatchNotificationsServer,
) error {
	return s.watch(request, stream)
}

// seen are the ids of the events of each message.
func (s *scripted) seen() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]string(nil), s.ids...)
}

// recorded is a stream that notes the events that come.
type recorded struct {
	pb.AlertService_EvaluateUsageServer
	server *scripted
}

func (r *recorded) Recv() (*pb.EvaluateUsageRequest, error) {
	request, err := r.AlertService_EvaluateUsageServer.Recv()
	if err == nil {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		r.server.ids = append(r.server.ids, idsOf(request.Batch))
	}
	return request, err
}

func idsOf(batch *pb.UsageBatch) []string {
	var ids []string
	for _, one := range batch.Events {
		ids = append(ids, one.EventId)
	}
	return ids
}

// serve starts servers of services, and returns the address.
func serve(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(options...)
	register(server)
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() {
		if err := server.Serve(listener); err != nil && err != grpc.ErrServerStopped {
			t.Errorf("the server of the test failed: %v", err)
		}
	}()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func serveScripts(t *testing.T, scripts ...script) *scripted {
	t.Helper()
	s := &scripted{scripts: scripts}
	s.address = serve(t, func(server *grpc.Server) { pb.RegisterAlertServiceServer(server, s) })
	return s
}

// answersAll answers each message of a stream.
func answersAll(stream pb.AlertService_EvaluateUsageServer) error {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(answer(request.Batch)); err != nil {
			return err
		}
	}
}

func answer(batch *pb.UsageBatch) *pb.EvaluateUsageResponse {
	return &pb.EvaluateUsageResponse{Outcome: accepted(batch)}
}

func accepted(batch *pb.UsageBatch) *pb.UsageOutcome {
	return &pb.UsageOutcome{BatchId: batch.BatchId, Accepted: int32(len(batch.Events))}
}

// held answers only when its gate is open.
func held(gate <-chan struct{}) script {
	return func(stream pb.AlertService_EvaluateUsageServer) error {
		select {
		case <-gate:
			return answersAll(stream)
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func connected(t *testing.T, address string, options ...Option) *Client {
	t.Helper()
	client, err := NewClient(address, options...)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func writerOf(t *testing.T, client *Client, options WriterOptions) *UsageWriter {
	t.Helper()
	if options.OnInterruption == nil {
		options.OnInterruption = func(string) {}
	}
	options.firstPause = 10 * time.Millisecond
	writer, err := client.UsageWriter(options)
	must(t, err)
	return writer
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func event(id string) *pb.UsageEvent {
	made := NewEvent("acme", "calls", "1")
	made.EventId = id
	return made
}

func sendAll(t *testing.T, writer *UsageWriter, prefix string, count int) {
	t.Helper()
	for i := 0; i < count; i++ {
		must(t, writer.Send(within(t), event(fmt.Sprintf("%s-%d", prefix, i))))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// cable is a proxy to a server whose connections can be cut; new connections are possible at once.
type cable struct {
	address  string
	to       string
	listener net.Listener
	mu       sync.Mutex
	ends     []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cable{address: listener.Addr().String(), to: to, listener: listener}
	t.Cleanup(func() { listener.Close(); c.cut() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // it is closed
			}
			far, err := net.Dial("tcp", c.to)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			c.ends = append(c.ends, near, far)
			c.mu.Unlock()
			go carry(near, far)
			go carry(far, near)
		}
	}()
	return c
}

func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from) // it ends when the connection is cut
	to.Close()
}

// cut aborts every connection.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range c.ends {
		if connection, ok := end.(*net.TCPConn); ok {
			_ = connection.SetLinger(0)
		}
		end.Close()
	}
	c.ends = nil
}
