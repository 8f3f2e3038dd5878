package wire

import (
	"io"
	"os"
	"syscall"
	"testing"
)

// TestUnixReads: reads wait for what is sent and end with what follows, by either system call.
func TestUnixReads(t *testing.T) {
	for name, from := range map[string]func(uintptr, []byte) (int, syscall.Errno){"raw": rawRead, "told": toldRead} {
		host, c := pair(t, "unix")
		s := unixSocketOf(c)
		s.in.from = from
		read := make(chan string)
		go func() {
			b, err := io.ReadAll(s)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			read <- string(b)
		}()
		for _, part := range []string{"some", " more"} {
			if _, err := io.WriteString(host, part); err != nil {
				t.Fatal(err)
			}
		}
		host.Close()
		if got := <-read; got != "some more" {
			t.Errorf("%s: %q", name, got)
		}
		c.Close()
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("%s: of a closed connection: %v", name, err)
		}
	}
}

// TestCanStop: the scheduler is told of reads from users that cannot stop this process.
func TestCanStop(t *testing.T) {
	own := uint32(os.Geteuid())
	for user, want := range map[uint32]bool{0: true, own: true, own + 1: false, 1<<32 - 2: false} {
		if canStop(user) != want {
			t.Errorf("user %d: %v", user, !want)
		}
	}
}

// TestCutWhileReading: sending that fails waits for no read, which may take long.
func TestCutWhileReading(t *testing.T) {
	host, c := pair(t, "unix")
	d, _ := ServeDirect(t.Context(), c, nil)
	defer d.HangUp()
	reads, goOn := make(chan bool), make(chan bool)
	d.unix.in.from = func(uintptr, []byte) (int, syscall.Errno) {
		reads <- true
		<-goOn
		return 0, 0
	}
	read := make(chan error)
	go func() {
		_, err := d.unix.Read(make([]byte, 1))
		read <- err
	}()
	<-reads
	host.CloseRead()
	all, err := d.Start(&Response{ID: 1})
	if !all || err == nil || d.Context().Err() == nil {
		t.Errorf("all %v, %v; the stream goes on: %v", all, err, d.Context().Err() == nil)
	}
	close(goOn)
	<-read
}

// TestCutEndsReading: once sending has failed, nothing more is read, though the host stays.
func TestCutEndsReading(t *testing.T) {
	host, c := pair(t, "unix")
	d, _ := ServeDirect(t.Context(), c, nil)
	defer d.HangUp()
	read := make(chan error)
	go func() { read <- d.ReadMessageHeader(make([]byte, prefix)) }()
	host.CloseRead()
	if _, err := d.Start(&Response{ID: 1}); err == nil {
		t.Error("sent to a host that does not receive")
	}
	if err := <-read; err == nil {
		t.Error("read what was not sent")
	}
}
