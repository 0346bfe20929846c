package tidemark

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	pb "tidemark.dev/api/tidemark/v1"
)

// Client is a connection to a server. Goroutines may share it. Every error of its calls is an *Error.
type Client struct {
	// Alerts has alerts, usage and notifications.
	Alerts pb.AlertServiceClient
	// Accounts has customers, subscriptions, metrics, plans, limits, balances and invoices.
	Accounts pb.AccountServiceClient
	// Limits has checks and reservations of usage.
	Limits pb.LimitServiceClient
	// Webhooks has endpoints and deliveries.
	Webhooks pb.WebhookServiceClient
	// Audit has the audit log.
	Audit pb.AuditServiceClient

	conn   *grpc.ClientConn
	target *target
}

// NewClient makes a client, which connects in the background.
//
// address is HOST:PORT; empty: that of TIDEMARK_SERVER, or else DefaultAddress.
func NewClient(address string, options ...Option) (*Client, error) {
	t, err := newTarget(address, options)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.Dial(t.dialTarget(), t.dialOptions()...)
	if err != nil {
		return nil, fmt.Errorf("tidemark: %w", err)
	}
	return &Client{
		Alerts:   pb.NewAlertServiceClient(conn),
		Accounts: pb.NewAccountServiceClient(conn),
		Limits:   pb.NewLimitServiceClient(conn),
		Webhooks: pb.NewWebhookServiceClient(conn),
		Audit:    pb.NewAuditServiceClient(conn),
		conn:     conn,
		target:   t,
	}, nil
}

// Connect makes a client that is connected. It returns an *Error with codes.Unavailable if no server answers before the
// context ends; without a deadline in the context it waits for 10 seconds.
func Connect(ctx context.Context, address string, options ...Option) (*Client, error) {
	client, err := NewClient(address, options...)
	if err != nil {
		return nil, err
	}
	if err := client.waitUntilReady(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// waitUntilReady waits until a new client is connected. Later, gRPC may have left an unused connection.
func (c *Client) waitUntilReady(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	for {
		state := c.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			sentence := fmt.Sprintf("no server answers at %s", c.target.address)
			return &Error{Code: codes.Unavailable, Message: sentence, cause: ctx.Err()}
		}
	}
}

// Conn returns the connection of gRPC, for calls that this package does not have.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close closes the connection. Calls in progress fail. Close writers and guards before it.
func (c *Client) Close() error { return c.conn.Close() }
