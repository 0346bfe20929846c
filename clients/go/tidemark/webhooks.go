package tidemark

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is how far the time of a webhook may be from now.
const DefaultTolerance = 5 * time.Minute

const (
	secretPrefix    = "whsec_"
	publicKeyPrefix = "whpk_"

	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"
)

// ErrWebhookNotVerified says that a request is not from Tidemark, was changed, or is too old. Errors of Verify wrap it,
// and say which check failed.
var ErrWebhookNotVerified = errors.New("tidemark: the webhook is not verified")

// WebhookVerifier checks the signature and the time of webhooks, after Standard Webhooks 1.0.0. Goroutines may share it.
type WebhookVerifier struct {
	// Tolerance is how far the time of a request may be from now: DefaultTolerance unless it is changed before use.
	Tolerance time.Duration
	// Now gives the present: time.Now unless it is changed before use.
	Now func() time.Time

	secrets    [][]byte
	publicKeys []ed25519.PublicKey
}

// NewWebhookVerifier makes a verifier of any of several keys: more than one while a secret is rotated. A key is whsec_…
// of an endpoint with the scheme v1, or whpk_… of one with v1a. The error for a key that is none has nothing of it.
func NewWebhookVerifier(keys ...string) (*WebhookVerifier, error) {
	verifier := &WebhookVerifier{Tolerance: DefaultTolerance, Now: time.Now}
	for _, key := range keys {
		switch {
		case strings.HasPrefix(key, secretPrefix):
			secret, err := decoded(key, secretPrefix)
			if err != nil {
				return nil, err
			}
			if len(secret) == 0 {
				return nil, errors.New("tidemark: nothing follows " + secretPrefix)
			}
			verifier.secrets = append(verifier.secrets, secret)
		case strings.HasPrefix(key, publicKeyPrefix):
			public, err := decoded(key, publicKeyPrefix)
			if err != nil {
				return nil, err
			}
			if len(public) != ed25519.PublicKeySize {
				return nil, fmt.Errorf("tidemark: a public key has %d bytes, not %d", ed25519.PublicKeySize, len(public))
			}
			verifier.publicKeys = append(verifier.publicKeys, public)
		default:
			return nil, fmt.Errorf("tidemark: a key to verify with begins with %s or %s", secretPrefix, publicKeyPrefix)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("tidemark: a verifier needs at least one key")
	}
	return verifier, nil
}

// Verify returns what a request reports. body has the bytes as they arrived. Every error wraps ErrWebhookNotVerified.
func (v *WebhookVerifier) Verify(header http.Header, body []byte) (*WebhookEvent, error) {
	id, timestamp, signatures := header.Get(headerID), header.Get(headerTimestamp), header.Get(headerSignature)
	if id == "" || timestamp == "" || signatures == "" {
		return nil, notVerified("a header is missing: %s, %s and %s are needed", headerID, headerTimestamp, headerSignature)
	}
	seconds, err := strconv.ParseUint(timestamp, 10, 40) // it takes digits only
	if err != nil {
		return nil, notVerified("%s is no number of seconds", headerTimestamp)
	}
	away := v.Now().Sub(time.Unix(int64(seconds), 0))
	if away < 0 {
		away = -away
	}
	if away > v.Tolerance {
		return nil, notVerified("%s is %.0f seconds away from now", headerTimestamp, away.Seconds())
	}
	signed := append([]byte(id+"."+timestamp+"."), body...)
	if !v.fits(signatures, signed) {
		return nil, notVerified("no signature fits: the secret is another one, or the body was changed")
	}
	event, err := ParseWebhookEvent(id, body)
	if err != nil {
		return nil, notVerified("the body is no event: %v", err)
	}
	return event, nil
}

// VerifyRequest reads at most maxBytes of the body of a request and verifies it. An error that does not wrap
// ErrWebhookNotVerified is one of reading.
func (v *WebhookVerifier) VerifyRequest(request *http.Request, maxBytes int64) (*WebhookEvent, error) {
	body, err := io.ReadAll(io.LimitReader(request.Body, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("tidemark: the body of a webhook: %w", err)
	}
	if int64(len(body)) > maxBytes {
		return nil, notVerified("the body is larger than %d bytes", maxBytes)
	}
	return v.Verify(request.Header, body)
}

// fits says whether one of the signatures is one of the keys. Each is compared in constant time.
func (v *WebhookVerifier) fits(signatures string, signed []byte) bool {
	var expected [][]byte
	for _, secret := range v.secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		expected = append(expected, mac.Sum(nil))
	}
	for _, signature := range strings.Split(signatures, " ") {
		scheme, encoded, _ := strings.Cut(signature, ",")
		given, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			continue
		}
		switch scheme {
		case "v1":
			for _, one := range expected {
				if hmac.Equal(given, one) {
					return true
				}
			}
		case "v1a":
			for _, key := range v.publicKeys {
				if ed25519.Verify(key, signed, given) {
					return true
				}
			}
		}
	}
	return false
}

func decoded(key, prefix string) ([]byte, error) {
	content, err := base64.StdEncoding.DecodeString(key[len(prefix):])
	if err != nil {
		return nil, errors.New("tidemark: what follows " + prefix + " is not base64")
	}
	return content, nil
}

func notVerified(format string, values ...interface{}) error {
	return fmt.Errorf("%w: %s", ErrWebhookNotVerified, fmt.Sprintf(format, values...))
}
