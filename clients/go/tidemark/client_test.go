package tidemark

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "tidemark.dev/api/tidemark/v1"
)

// reader answers GetAlert, and notes what came.
type reader struct {
	pb.UnimplementedAlertServiceServer
	answer func(context.Context) error

	mu       sync.Mutex
	calls    int
	metadata metadata.MD
}

func (r *reader) GetAlert(ctx context.Context, _ *pb.GetAlertRequest) (*pb.GetAlertResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	r.metadata, _ = metadata.FromIncomingContext(ctx)
	if r.answer == nil {
		return &pb.GetAlertResponse{}, nil
	}
	return &pb.GetAlertResponse{}, r.answer(ctx)
}

func (r *reader) CreateAlert(ctx context.Context, _ *pb.CreateAlertRequest) (*pb.CreateAlertResponse, error) {
	_, err := r.GetAlert(ctx, nil)
	return &pb.CreateAlertResponse{}, err
}

func serveReader(t *testing.T, answer func(context.Context) error, options ...grpc.ServerOption) (*reader, string) {
	t.Helper()
	r := &reader{answer: answer}
	return r, serve(t, func(server *grpc.Server) { pb.RegisterAlertServiceServer(server, r) }, options...)
}

func get(t *testing.T, client *Client) error {
	t.Helper()
	_, err := client.Alerts.GetAlert(within(t), &pb.GetAlertRequest{AlertId: "a"})
	return err
}

func TestEveryCallCarriesKeyMetadataAndUserAgent(t *testing.T) {
	server, address := serveReader(t, nil)
	client := connected(
		t, address, WithAPIKey(" tmk_key\n"), WithMetadata("x-tenant", "one"), WithUserAgent("gateway/1.2"),
	)
	must(t, get(t, client))
	if one := server.metadata.Get("authorization"); len(one) != 1 || one[0] != "Bearer tmk_key" {
		t.Fatal(one)
	}
	if one := server.metadata.Get("x-tenant"); len(one) != 1 || one[0] != "one" {
		t.Fatal(one)
	}
	if one := server.metadata.Get("user-agent"); !strings.HasPrefix(one[0], "gateway/1.2 tidemark-client/"+Version) {
		t.Fatal(one)
	}
}

func TestKeyAndAddressComeFromTheEnvironment(t *testing.T) {
	server, address := serveReader(t, nil)
	t.Setenv("TIDEMARK_SERVER", address)
	t.Setenv("TIDEMARK_API_KEY", "")
	t.Setenv("TIDEMARK_KEY", "tmk_second")
	must(t, get(t, connected(t, "")))
	if one := server.metadata.Get("authorization"); one[0] != "Bearer tmk_second" {
		t.Fatal(one)
	}
	t.Setenv("TIDEMARK_API_KEY", "tmk_first")
	must(t, get(t, connected(t, "")))
	if one := server.metadata.Get("authorization"); one[0] != "Bearer tmk_first" {
		t.Fatal(one)
	}
	must(t, get(t, connected(t, "", WithAPIKey(""))))
	if one := server.metadata.Get("authorization"); len(one) != 0 {
		t.Fatal(one)
	}
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	for _, option := range []Option{WithAPIKey("two words"), WithAPIKey("schlüssel"), WithMetadata("alone")} {
		if _, err := NewClient("127.0.0.1:1", option); err == nil || strings.Contains(err.Error(), "schl") {
			t.Fatal(err)
		}
	}
	if _, err := NewClient("https://tidemark.example"); err == nil {
		t.Fatal("a scheme was taken")
	}
	if _, err := TLSFromFiles("", "certificate", ""); err == nil {
		t.Fatal("half a pair was taken")
	}
	if _, err := TLSFromFiles(filepath.Join(t.TempDir(), "missing"), "", ""); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestConnectWaitsForAServer(t *testing.T) {
	_, address := serveReader(t, nil)
	client, err := Connect(within(t), address)
	must(t, err)
	must(t, client.Close())
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = Connect(short, "127.0.0.1:1")
	if !errors.Is(err, &Error{Code: codes.Unavailable}) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Fatal(err)
	}
}

func TestACallWithoutADeadlineHasOne(t *testing.T) {
	waits := func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return nil
		}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	_, address := serveReader(t, waits)
	_, err := connected(t, address, WithTimeout(20*time.Millisecond)).Alerts.GetAlert(
		context.Background(), &pb.GetAlertRequest{})
	if !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	_, err = connected(t, address, WithTimeout(0)).Alerts.GetAlert(context.Background(), &pb.GetAlertRequest{})
	must(t, err)
}

func TestAnErrorHasItsReasonMetadataViolationsDelayAndRequest(t *testing.T) {
	_, address := serveReader(t, func(ctx context.Context) error {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", "r-17")); err != nil {
			return err
		}
		made, err := status.New(codes.InvalidArgument, "alert_id: is empty").WithDetails(
			&errdetails.ErrorInfo{Reason: "ERROR_REASON_ALERT_NOT_FOUND", Metadata: map[string]string{"alert_id": "a"}},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "alert_id", Description: "is empty"}, {Field: "name", Description: "is long"},
			}},
		)
		if err != nil {
			return err
		}
		return made.Err()
	})
	err := get(t, connected(t, address))
	var found *Error
	if !errors.As(err, &found) {
		t.Fatal(err)
	}
	if found.Reason != "ALERT_NOT_FOUND" || found.Metadata["alert_id"] != "a" || len(found.Violations) != 2 ||
		*found.RetryAfter != 1500*time.Millisecond || found.RequestID != "r-17" {
		t.Fatalf("%+v", found)
	}
	if text := err.Error(); text != "alert_id: is empty; name: is long [ALERT_NOT_FOUND] (request r-17)" {
		t.Fatal(text)
	}
	for target, fits := range map[*Error]bool{
		{Code: codes.InvalidArgument}:                            true,
		{Code: codes.InvalidArgument, Reason: "ALERT_NOT_FOUND"}: true,
		{Code: codes.InvalidArgument, Reason: "OTHER"}:           false,
		{Code: codes.NotFound}:                                   false,
	} {
		if errors.Is(err, target) != fits {
			t.Fatal(target)
		}
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Fatal(status.Code(err))
	}
}

// Before gRPC 1.40, retries are off unless the environment has GRPC_GO_RETRY=on, as the tests of the repository set it.
func TestReadingCallsAreRepeatedAndCreatingOnesAreNot(t *testing.T) {
	failures := 0
	server, address := serveReader(t, func(context.Context) error {
		if failures++; failures < 3 {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	})
	client := connected(t, address)
	must(t, get(t, client))
	if server.calls != 3 {
		t.Fatal(server.calls)
	}
	failures, server.calls = 0, 0
	if _, err := client.Alerts.CreateAlert(within(t), &pb.CreateAlertRequest{}); !errors.Is(err, &Error{Code: codes.Unavailable}) {
		t.Fatal(err)
	}
	if server.calls != 1 {
		t.Fatal(server.calls)
	}
}

func TestTLSWithACertificateOfTheClient(t *testing.T) {
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "certificate.pem"), filepath.Join(folder, "key.pem")
	pair := selfSigned(t, certificate, key)
	trusted := x509.NewCertPool()
	trusted.AddCert(pair.Leaf)
	_, address := serveReader(t, nil, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	config, err := TLSFromFiles(certificate, certificate, key)
	must(t, err)
	must(t, get(t, connected(t, address, WithTLS(config))))
	for _, other := range []Option{WithTLS(nil), WithTLS(&tls.Config{RootCAs: trusted})} {
		if err := get(t, connected(t, address, other)); !errors.Is(err, &Error{Code: codes.Unavailable}) {
			t.Fatal(err)
		}
	}
}

// selfSigned writes a certificate for 127.0.0.1 that signs itself.
func selfSigned(t *testing.T, certificate, key string) tls.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	content, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	must(t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: content}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	pair, err := tls.LoadX509KeyPair(certificate, key)
	must(t, err)
	pair.Leaf, err = x509.ParseCertificate(content)
	must(t, err)
	return pair
}
