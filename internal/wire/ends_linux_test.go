package wire

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of a connection of a network, with a deadline.
func pair(t *testing.T, network string) (host, daemon socket) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var ends [2]net.Conn
	if ends[0], err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ends[1], err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range ends {
		c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return ends[0].(socket), ends[1].(socket)
}

// eventually waits until is returns true. It returns false if that takes too long.
func eventually(is func() bool) bool {
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// TestEnded: a closed connection is noticed even while data on it is unread.
func TestEnded(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		host, daemon := pair(t, network)
		if _, err := daemon.Write([]byte("an answer")); err != nil {
			t.Fatal(err)
		}
		if Ended(host) || Gone(host) {
			t.Errorf("%s: ended", network)
		}
		daemon.CloseWrite()
		if !eventually(func() bool { return Ended(host) }) {
			t.Errorf("%s: not ended", network)
		}
		if gone := Gone(host); gone != (network == "tcp") {
			t.Errorf("%s: gone after an end one way: %v", network, gone)
		}
		host, daemon = pair(t, network)
		host.Close()
		if !eventually(func() bool { return Ended(host) && Ended(daemon) && Gone(host) && Gone(daemon) }) {
			t.Errorf("%s: not ended when closed", network)
		}
	}
}

// TestEndedInterrupted: a signal, such as the runtime sends to preempt, does not make a live
// connection look closed.
func TestEndedInterrupted(t *testing.T) {
	host, _ := pair(t, "unix")
	stop := make(chan struct{})
	var signals sync.WaitGroup
	signals.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
			}
		}
	})
	for i := range 200_000 {
		if Ended(host) || Gone(host) {
			t.Errorf("ended, at try %d", i)
			break
		}
	}
	close(stop)
	signals.Wait()
}

// TestWatch: it calls back once, when the peer has gone, whether or not the connection is read.
func TestWatch(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) { testWatch(t, network) })
	}
}

func testWatch(t *testing.T, network string) {
	opened := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	host, daemon := pair(t, network) // also makes the runtime open its epoll descriptor
	host.Close()
	daemon.Close()
	before := opened()
	gone := make(chan struct{}, 10)
	watches := func(c socket) (stop func()) {
		stop, err := watch(c, func() { gone <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		return stop
	}
	quiet := func(when string) {
		t.Helper()
		select {
		case <-gone:
			t.Errorf("%s: the other end has gone", when)
		case <-time.After(20 * time.Millisecond):
		}
	}
	told := func() {
		t.Helper()
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told")
		}
	}
	host, daemon = pair(t, network)
	stop := watches(daemon)
	if _, err := host.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	quiet("there is something to read")
	if _, err := io.ReadFull(daemon, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if network == "unix" {
		host.CloseWrite()
		quiet("it sends no more")
	}
	host.Close() // with a byte that nobody reads
	told()
	quiet("again")
	stop()
	stop = watches(daemon)
	told() // it had gone before
	stop()
	daemon.Close()
	if _, err := watch(daemon, func() { t.Error("no connection is watched") }); err == nil {
		t.Error("a connection that is closed is watched")
	}

	host, daemon = pair(t, network)
	watches(daemon)() // until now
	host.Close()
	quiet("nobody watches")
	daemon.Close()
	host, closed := pair(t, network)
	stop = watches(closed)
	closed.Close()
	quiet("this end has gone")
	stop()
	host.Close()
	if !eventually(func() bool { return opened() <= before }) {
		t.Errorf("%d descriptors are open, %d were", opened(), before)
	}
}
