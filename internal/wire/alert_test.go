package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestAlert(t *testing.T) {
	for message, want := range map[string]tls.AlertError{
		"remote error: tls: bad certificate":                                      42,
		"error reading server preface: remote error: tls: certificate required":   116,
		"transport: authentication handshake failed: remote error: tls: alert(7)": 7,
		"remote error: tls: unknown certificate authority":                        48,
	} {
		if got, ok := Alert(message); got != want || !ok {
			t.Errorf("%s: %d, %v", message, got, ok)
		}
	}
	for _, message := range []string{"", "tls: bad certificate", "remote error: ", "remote error: tls: bad certificate of mine", "remote error: tls: alert(256)"} {
		if got, ok := Alert(message); ok {
			t.Errorf("%s: %d", message, got)
		}
	}
}

// dead is a connection of which writes fail at once, and reads later.
type dead struct {
	net.Conn
	late time.Duration
	read error
}

func (d dead) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func (d dead) Read([]byte) (int, error) {
	time.Sleep(d.late)
	return 0, d.read
}

// TestAlerted: a write that fails gives the alert, where that is what there is to read.
func TestAlerted(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: tls.AlertError(42)}
	for _, read := range []error{alert, syscall.ECONNRESET} {
		c := &alerted{Conn: dead{late: 20 * time.Millisecond, read: read}, read: make(chan struct{})}
		go c.Read(nil)
		want := read
		if read != error(alert) {
			want = syscall.EPIPE
		}
		for range 2 {
			if _, err := c.Write([]byte{1}); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
	}
	// Nothing is read: it does not wait for long.
	if _, err := (&alerted{Conn: dead{}, read: make(chan struct{})}).Write([]byte{1}); err != syscall.EPIPE {
		t.Error(err)
	}
}
