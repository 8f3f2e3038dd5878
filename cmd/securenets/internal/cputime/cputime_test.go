package cputime_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
)

// TestSelf: both clocks of this process run by as much as a thread that is busy, and not
// while it sleeps.
func TestSelf(t *testing.T) {
	const busy, asleep, idle = 100 * time.Millisecond, 200 * time.Millisecond, 100 * time.Millisecond
	self, of := cputime.Self(), read(t)
	for deadline := time.Now().Add(time.Minute); cputime.Self()-self < busy; {
		if time.Now().After(deadline) {
			t.Fatalf("%v of processor time in a minute", cputime.Self()-self)
		}
	}
	if ran := read(t) - of; ran < busy*9/10 || ran > busy*2 {
		t.Errorf("%v by the process' clock, %v by its usage", ran, busy)
	}
	self, of = cputime.Self(), read(t)
	time.Sleep(asleep)
	if a, b := cputime.Self()-self, read(t)-of; a > idle || b > idle {
		t.Errorf("%v and %v in a sleep of %v", a, b, asleep)
	}
}

// read returns this process' time as that of any other.
func read(t *testing.T) time.Duration {
	t.Helper()
	d, err := cputime.Of(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("another process' time is not known here")
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOfNone: of a process that is not there, there is no time.
func TestOfNone(t *testing.T) {
	if d, err := cputime.Of(1 << 28); err == nil {
		t.Errorf("%v", d)
	}
}
