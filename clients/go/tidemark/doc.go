// Package tidemark is the client of Tidemark, which notifies a business when the usage, spend or balance of a customer
// reaches a threshold.
//
// A Client is a connection. Its fields are the services of the contract; their messages are in the package
// tidemark.dev/api/tidemark/v1. On top of them, a UsageWriter sends usage so that nothing is lost and nothing counts
// twice, a Watcher receives notifications, a Guard reserves usage before it happens, CachedChecks answer from a cache,
// and a WebhookVerifier checks webhooks.
//
// Amounts are decimal strings, in requests and in answers: a float would not be exact.
package tidemark

// Version is the version of this package, which is that of the service.
const Version = "0.1.0"
