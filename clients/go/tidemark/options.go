package tidemark

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // the service config asks for health checks
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// DefaultAddress is where `tidemark up` listens.
const DefaultAddress = "127.0.0.1:50051"

const (
	defaultTimeout = 10 * time.Second
	// maxReceivedBytes is the largest answer that the contract can be asked for, with its frame.
	maxReceivedBytes = 64<<20 + 64<<10
	// keepaliveTime is without traffic: then a connection is tested. Proxies forget idle ones.
	keepaliveTime    = 60 * time.Second
	keepaliveTimeout = 20 * time.Second
	// With gRPC's own pauses, 1 to 120 seconds, a client stays away long after the server is back.
	firstReconnect   = 250 * time.Millisecond
	longestReconnect = 2 * time.Second
	connectTimeout   = 5 * time.Second
)

// serviceConfig says what gRPC repeats by itself: after UNAVAILABLE, with pauses, only methods that are safe to repeat.
//
//go:embed service_config.json
var serviceConfig string

// Option changes how a client connects.
type Option func(*target) error

// target is a server, and what each call to it carries.
type target struct {
	address   string
	tls       *tls.Config
	apiKey    string
	hasKey    bool
	timeout   time.Duration
	metadata  metadata.MD
	userAgent string
	dial      []grpc.DialOption
}

// WithAPIKey sets the API key, tmk_…; without it, the key is that of TIDEMARK_API_KEY, or else of TIDEMARK_KEY. An empty
// key sends none.
func WithAPIKey(key string) Option {
	return func(t *target) error {
		t.apiKey, t.hasKey = key, true
		return nil
	}
}

// WithTLS connects by TLS; nil trusts the authorities of the system. TLSFromFiles reads files in PEM.
func WithTLS(config *tls.Config) Option {
	return func(t *target) error {
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.tls = config
		return nil
	}
}

// WithTimeout sets the time of a call with one answer whose context has no deadline: 10 seconds without this option, and
// no limit with 0. Streams have none.
func WithTimeout(timeout time.Duration) Option {
	return func(t *target) error {
		t.timeout = timeout
		return nil
	}
}

// WithMetadata adds metadata to each call, as pairs of a name and a value.
func WithMetadata(pairs ...string) Option {
	return func(t *target) error {
		if len(pairs)%2 != 0 {
			return errors.New("tidemark: WithMetadata takes pairs of a name and a value")
		}
		t.metadata = metadata.Join(t.metadata, metadata.Pairs(pairs...))
		return nil
	}
}

// WithUserAgent names the program in the logs of servers, such as gateway/1.2.
func WithUserAgent(name string) Option {
	return func(t *target) error {
		t.userAgent = name
		return nil
	}
}

// WithDialOptions adds options of gRPC, such as interceptors, which run beside those of the client. Other options replace
// what the client sets.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(t *target) error {
		t.dial = append(t.dial, options...)
		return nil
	}
}

// TLSFromFiles makes a configuration of files in PEM. authorities is a file of those that may sign the certificate of
// the server; empty: those of the system. certificate and key are of the client, for a server that asks for one; both
// empty: none.
func TLSFromFiles(authorities, certificate, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities != "" {
		content, err := os.ReadFile(authorities)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("tidemark: %s has no certificate in PEM", authorities)
		}
	}
	if (certificate == "") != (key == "") {
		return nil, errors.New("tidemark: certificate and key of the client belong together: give both or none")
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func newTarget(address string, options []Option) (*target, error) {
	if address == "" {
		address = os.Getenv("TIDEMARK_SERVER")
	}
	if address == "" {
		address = DefaultAddress
	}
	for _, scheme := range []string{"http://", "https://", "grpc://", "grpcs://"} {
		if strings.HasPrefix(address, scheme) {
			return nil, fmt.Errorf("tidemark: %q is not an address of gRPC: write HOST:PORT, without a scheme", address)
		}
	}
	t := &target{address: address, timeout: defaultTimeout}
	for _, option := range options {
		if err := option(t); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"TIDEMARK_API_KEY", "TIDEMARK_KEY"} {
		if t.hasKey {
			break
		}
		t.apiKey = os.Getenv(name)
		t.hasKey = strings.TrimSpace(t.apiKey) != ""
	}
	t.apiKey = strings.TrimSpace(t.apiKey)
	for _, one := range t.apiKey {
		if one <= ' ' || one > '~' {
			return nil, errors.New("tidemark: this is not an API key: a key is tmk_ and letters, digits, - and _, without blanks")
		}
	}
	return t, nil
}

// dialTarget is the address as gRPC understands it. The resolver dns finds every address of a name, for round robin; an
// address that names a resolver, such as unix:/run/tidemark.sock, stays as it is.
func (t *target) dialTarget() string {
	for _, scheme := range []string{"dns:", "unix:", "unix-abstract:", "passthrough:", "xds:", "ipv4:", "ipv6:"} {
		if strings.HasPrefix(t.address, scheme) {
			return t.address
		}
	}
	return "dns:///" + t.address
}

func (t *target) dialOptions() []grpc.DialOption {
	agent := fmt.Sprintf("tidemark-client/%s (%s)", Version, runtime.Version())
	if t.userAgent != "" {
		agent = t.userAgent + " " + agent
	}
	pauses := backoff.DefaultConfig
	pauses.BaseDelay, pauses.MaxDelay = firstReconnect, longestReconnect
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // of DNS: the one above counts
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceivedBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: connectTimeout}),
		grpc.WithUserAgent(agent),
		grpc.WithChainUnaryInterceptor(t.unary),
		grpc.WithChainStreamInterceptor(t.stream),
	}
	if t.tls != nil {
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(t.tls)))
	} else {
		// Its successor does not exist before gRPC 1.34; the oldest version that this package is tested with is 1.33.
		options = append(options, grpc.WithInsecure())
	}
	return append(options, t.dial...)
}
