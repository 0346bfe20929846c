package tidemark

import (
	"container/list"
	"context"
	"log"
	"sync"
	"time"

	pb "tidemark.dev/api/tidemark/v1"
)

const (
	mostCheckedCustomers = 100 // of one BatchCheckUsage
	// gathering is in which customers come together in one call.
	gathering = 5 * time.Millisecond
)

// CheckOptions say how old a decision may be. A zero value means the value that is named first.
type CheckOptions struct {
	// FailOpen: false. What is answered when the server has not, and the last answer is older than MaxStale.
	FailOpen bool
	// MaxAge: 2 s. So long an answer is used; at most as long as the answer says.
	MaxAge time.Duration
	// MaxStale: 30 s. So long an answer is used while the server does not answer.
	MaxStale time.Duration
	// CheckTimeout: 500 ms, of one call.
	CheckTimeout time.Duration
	// MostCached: 100,000 customers. Those that were read longest ago are forgotten.
	MostCached int
	// Logf: log.Printf. Gets why checks fail.
	Logf func(format string, values ...interface{})
}

// CachedChecks say whether customers may use one more unit of a metric, from a cache: for requests of which each is
// small, and one more does no harm. The API key needs the role reader.
type CachedChecks struct {
	client  *Client
	options CheckOptions
	usage   *pb.CheckedUsage

	mu     sync.Mutex
	cache  map[string]*list.Element
	byAge  *list.List // of cachedCheck, the oldest first
	valid  time.Duration
	wanted *gathered
}

// cachedCheck is one answer. at is when it was asked for; since then it may be wrong.
type cachedCheck struct {
	customerID string
	isAllowed  bool
	at         time.Time
}

// gathered are customers that are read together.
type gathered struct {
	customerIDs []string
	known       map[string]int // their places
	done        chan struct{}
	errs        []error         // by part of mostCheckedCustomers
	answers     map[string]bool // with CachedChecks.mu; the cache may have forgotten them before they are read
}

// CachedChecks makes a cache for one metric.
func (c *Client) CachedChecks(metricID string, options CheckOptions) *CachedChecks {
	for _, one := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&options.MaxAge, 2 * time.Second},
		{&options.MaxStale, 30 * time.Second},
		{&options.CheckTimeout, 500 * time.Millisecond},
	} {
		if *one.value <= 0 {
			*one.value = one.unset
		}
	}
	if options.MostCached <= 0 {
		options.MostCached = 100_000
	}
	if options.Logf == nil {
		options.Logf = log.Printf
	}
	return &CachedChecks{
		client:  c,
		options: options,
		usage:   &pb.CheckedUsage{MetricId: metricID, Quantity: "1"},
		cache:   map[string]*list.Element{},
		byAge:   list.New(),
		valid:   options.MaxAge,
	}
}

// Cached returns the answer of the cache; isKnown is false if there is none that is young enough.
func (c *CachedChecks) Cached(customerID string) (isAllowed, isKnown bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := c.options.MaxAge
	if c.valid < age {
		age = c.valid
	}
	return c.cached(customerID, age)
}

// MayUse says whether the customer may use one more. Usage of the last MaxAge may be missing in the answer. It returns
// an *Error where the request or the key is wrong, because FailOpen is not for mistakes, and the error of the context if
// that ends first.
func (c *CachedChecks) MayUse(ctx context.Context, customerID string) (bool, error) {
	if isAllowed, isKnown := c.Cached(customerID); isKnown {
		return isAllowed, nil
	}
	wanted, place := c.want(customerID)
	select {
	case <-wanted.done:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if err := wanted.errs[place/mostCheckedCustomers]; err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if isAllowed, isKnown := wanted.answers[customerID]; isKnown {
		return isAllowed, nil
	}
	if isAllowed, isKnown := c.cached(customerID, c.options.MaxStale); isKnown {
		return isAllowed, nil
	}
	return c.options.FailOpen, nil
}

// cached returns an answer that is younger than age; c.mu is held.
func (c *CachedChecks) cached(customerID string, age time.Duration) (isAllowed, isKnown bool) {
	found, ok := c.cache[customerID]
	if !ok {
		return false, false
	}
	check := found.Value.(cachedCheck)
	return check.isAllowed, time.Since(check.at) < age
}

// want adds a customer to those that are read next. Requests for one customer share a read, and customers share a call.
func (c *CachedChecks) want(customerID string) (*gathered, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted == nil {
		c.wanted = &gathered{known: map[string]int{}, answers: map[string]bool{}, done: make(chan struct{})}
		time.AfterFunc(gathering, c.read)
	}
	place, ok := c.wanted.known[customerID]
	if !ok {
		place = len(c.wanted.customerIDs)
		c.wanted.known[customerID] = place
		c.wanted.customerIDs = append(c.wanted.customerIDs, customerID)
	}
	return c.wanted, place
}

// read reads the gathered customers.
func (c *CachedChecks) read() {
	c.mu.Lock()
	wanted := c.wanted
	c.wanted = nil
	c.mu.Unlock()
	var parts [][]string
	for left := wanted.customerIDs; len(left) > 0; {
		size := mostCheckedCustomers
		if size > len(left) {
			size = len(left)
		}
		parts, left = append(parts, left[:size]), left[size:]
	}
	wanted.errs = make([]error, len(parts))
	var reading sync.WaitGroup
	for at, part := range parts {
		reading.Add(1)
		go func(at int, part []string) {
			defer reading.Done()
			wanted.errs[at] = c.ask(wanted, part)
		}(at, part)
	}
	reading.Wait()
	close(wanted.done)
}

// ask reads decisions into the cache, and for those that wait. It returns an error only where the request or the key is wrong.
func (c *CachedChecks) ask(wanted *gathered, customerIDs []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.options.CheckTimeout)
	defer cancel()
	asked := time.Now()
	answer, err := c.client.Limits.BatchCheckUsage(ctx, &pb.BatchCheckUsageRequest{
		CustomerIds: customerIDs, Usages: []*pb.CheckedUsage{c.usage},
	})
	if err != nil {
		if !isRepeated(asError(err).Code) {
			return err
		}
		// What is cached is used for longer, up to MaxStale.
		c.options.Logf("tidemark: no checks: %v", err)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The difference of two times of the server: its clock and this one may differ.
	c.valid = answer.GetValidUntilTime().AsTime().Sub(answer.GetUpdateTime().AsTime())
	for _, customer := range answer.GetCustomers() {
		for _, check := range customer.GetChecks() {
			if err := check.GetError(); err != nil {
				c.options.Logf("tidemark: no check of %s: %s", customer.GetCustomerId(), err.GetMessage())
				continue
			}
			isAllowed := check.GetDecision().GetOutcome() != pb.DecisionOutcome_DECISION_OUTCOME_DENIED
			wanted.answers[customer.GetCustomerId()] = isAllowed
			c.keep(cachedCheck{customer.GetCustomerId(), isAllowed, asked})
		}
	}
	return nil
}

// keep puts an answer into the cache; c.mu is held.
func (c *CachedChecks) keep(check cachedCheck) {
	if before, ok := c.cache[check.customerID]; ok {
		c.byAge.Remove(before)
	}
	c.cache[check.customerID] = c.byAge.PushBack(check)
	for len(c.cache) > c.options.MostCached {
		oldest := c.byAge.Remove(c.byAge.Front()).(cachedCheck)
		delete(c.cache, oldest.customerID)
	}
}
