package tidemark

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

const body = `{"id": "ntf_1", "type": "alert.reached", "timestamp": "2026-03-15T12:00:00.000001Z", "data": {"customer_id": "acme"}}`

var (
	noon       = time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC)
	secret     = secretPrefix + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef01234567"))
	other      = secretPrefix + base64.StdEncoding.EncodeToString([]byte("fedcba9876543210fedcba98"))
	private    = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	public     = publicKeyPrefix + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	signingKey = "whsk_" // stands for the private key
)

// signed are the headers of a request that was signed with keys.
func signed(content string, keys ...string) http.Header {
	stamp := strconv.FormatInt(noon.Unix(), 10)
	text := []byte("ntf_1." + stamp + "." + content)
	var signatures []string
	for _, key := range keys {
		if key == signingKey {
			signatures = append(signatures, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(private, text)))
			continue
		}
		raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, secretPrefix))
		mac := hmac.New(sha256.New, raw)
		mac.Write(text)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return http.Header{
		"Webhook-Id":        {"ntf_1"},
		"Webhook-Timestamp": {stamp},
		"Webhook-Signature": {strings.Join(signatures, " ")},
	}
}

func verifierAt(t *testing.T, now time.Time, keys ...string) *WebhookVerifier {
	t.Helper()
	verifier, err := NewWebhookVerifier(keys...)
	must(t, err)
	verifier.Now = func() time.Time { return now }
	return verifier
}

func TestASignedRequestGivesItsEvent(t *testing.T) {
	event, err := verifierAt(t, noon, secret).Verify(signed(body, secret), []byte(body))
	must(t, err)
	if event.ID != "ntf_1" || event.Type != "alert.reached" || event.CustomerID() != "acme" || event.Sequence() != 0 {
		t.Fatal(event)
	}
	if !event.Time.Equal(noon.Add(time.Microsecond)) || event.Transitions() != nil || event.Value() != "" || event.IsTest() {
		t.Fatal(event)
	}
}

func TestAnyKeyAndAnySignatureIsEnough(t *testing.T) {
	for _, keys := range [][]string{{secret}, {other}, {other, secret}, {signingKey}, {signingKey, other}} {
		_, err := verifierAt(t, noon, secret, other, public).Verify(signed(body, keys...), []byte(body))
		must(t, err)
	}
}

func TestAChangedRequestIsRefused(t *testing.T) {
	for name, change := range map[string]func(header http.Header) (key, content string){
		"body": func(http.Header) (string, string) { return secret, strings.Replace(body, "acme", "evil", 1) },
		"id":   func(h http.Header) (string, string) { h.Set("webhook-id", "ntf_2"); return secret, body },
		"time": func(h http.Header) (string, string) {
			h.Set("webhook-timestamp", strconv.FormatInt(noon.Unix()+1, 10))
			return secret, body
		},
		"key": func(http.Header) (string, string) { return other, body },
		"scheme": func(h http.Header) (string, string) {
			h.Set("webhook-signature", strings.Replace(h.Get("webhook-signature"), "v1,", "v2,", 1))
			return secret, body
		},
	} {
		header := signed(body, secret)
		key, content := change(header)
		_, err := verifierAt(t, noon, key).Verify(header, []byte(content))
		if !errors.Is(err, ErrWebhookNotVerified) || !strings.Contains(err.Error(), "no signature fits") {
			t.Fatal(name, err)
		}
	}
}

func TestAnOldRequestAndOneOfTheFutureAreRefused(t *testing.T) {
	for _, away := range []time.Duration{5*time.Minute + time.Second, -5*time.Minute - time.Second} {
		verifier := verifierAt(t, noon.Add(away), secret)
		_, err := verifier.Verify(signed(body, secret), []byte(body))
		if !errors.Is(err, ErrWebhookNotVerified) || !strings.Contains(err.Error(), "301 seconds away") {
			t.Fatal(err)
		}
		verifier.Tolerance = time.Hour
		_, err = verifier.Verify(signed(body, secret), []byte(body))
		must(t, err)
	}
}

func TestABadTimeOrSignatureIsRefused(t *testing.T) {
	verifier := verifierAt(t, noon, secret, public)
	for name, values := range map[string][]string{
		"Webhook-Timestamp": {"", "now", "1e9", "٣", "+1", strings.Repeat("9", 400)},
		"Webhook-Signature": {"", "v1", "v1,", "v1,!!", "v1a,AAAA", " ", strings.Repeat("v1,AAAA ", 100)},
	} {
		for _, value := range values {
			header := signed(body, secret)
			header[name] = []string{value}
			if _, err := verifier.Verify(header, []byte(body)); !errors.Is(err, ErrWebhookNotVerified) {
				t.Fatal(name, value, err)
			}
		}
	}
}

func TestABodyThatIsNoEventIsRefused(t *testing.T) {
	for _, content := range []string{
		"", "[]", "null", "{}", "\xff", `{"type": 1}`, strings.Repeat("[", 100_000), body + "{}",
		strings.Replace(body, "2026-03-15T12:00:00.000001Z", "noon", 1),
	} {
		_, err := verifierAt(t, noon, secret).Verify(signed(content, secret), []byte(content))
		if !errors.Is(err, ErrWebhookNotVerified) || !strings.Contains(err.Error(), "no event") {
			t.Fatal(content, err)
		}
	}
}

func TestABadKeyIsRefusedWithoutShowingIt(t *testing.T) {
	for _, keys := range [][]string{{}, {"secret"}, {"whsec_"}, {"whsec_!AAAA"}, {"whpk_AAAA"}, {"whsk_AAAA"}} {
		if _, err := NewWebhookVerifier(keys...); err == nil || strings.Contains(err.Error(), "AAAA") {
			t.Fatal(keys, err)
		}
	}
}

func TestARequestIsReadUpToABound(t *testing.T) {
	verifier := verifierAt(t, noon, secret)
	for most, isEnough := range map[int64]bool{int64(len(body)): true, int64(len(body)) - 1: false} {
		request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		request.Header = signed(body, secret)
		if _, err := verifier.VerifyRequest(request, most); (err == nil) != isEnough {
			t.Fatal(most, err)
		}
	}
}

func TestAnEventOfAGaugeHasItsTransitions(t *testing.T) {
	event, err := ParseWebhookEvent("ntf_1", []byte(`{"type": "alert.reached", "timestamp": "2026-03-15T12:00:00Z", "data": {
		"alert_id": "alr_1", "sequence": 7, "value": "5.10", "previous_value": "0", "test": true, "transitions": [
			{"kind": "REACHED", "level": "2", "value": "5.10", "threshold": {"code": "warn", "severity": "WARNING"}, "new": 1}, 3
		]}}`))
	must(t, err)
	if event.AlertID() != "alr_1" || event.Sequence() != 7 || event.Value() != "5.10" || event.PreviousValue() != "0" ||
		!event.IsTest() {
		t.Fatal(event)
	}
	one := event.Transitions()[0]
	if len(event.Transitions()) != 1 || one.Kind != "REACHED" || one.Level != "2" || one.Value != "5.10" ||
		one.Code != "warn" || one.Severity != "WARNING" || one.Fields["new"] == nil {
		t.Fatal(one)
	}
}
