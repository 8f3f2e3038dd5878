package hostclient_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/hostclient"
)

// childEnv makes a run of this test binary a host of its own process: what it
// does, the cloud, the sealed network's folder, its identity and the stock's root.
const childEnv = "SECURENETS_TEST_STOCK"

// child is a host in another process.
type child struct {
	*exec.Cmd
	out    *bufio.Reader
	in     io.Closer
	stderr bytes.Buffer
}

// processes runs hosts in other processes on one stock.
type processes struct {
	*padded
	dir, root, id string
}

func newProcesses(t *testing.T) *processes {
	p := &processes{padded: newPadded(t), dir: filepath.Join(t.TempDir(), "sealed"), root: t.TempDir()}
	id := identity(t)
	p.id = id.String()
	if err := hostclient.WriteDir(p.dir, p.secret, p.models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	return p
}

func stockIn(root string) *hostclient.DurableStock {
	return &hostclient.DurableStock{Dir: filepath.Join(root, "pads"), JournalDir: filepath.Join(root, "burned"), MachineID: machine}
}

// start starts a host that does what TestStockChild says of its name.
func (p *processes) start(does string) *child {
	p.t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0], "-test.run=^TestStockChild$")}
	c.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{does, p.cloud.addr, p.dir, p.id, p.root}, "\n"))
	c.Stderr = &c.stderr
	out, err := c.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if c.in, err = c.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if line, err := c.out.ReadString('\n'); line != "ready\n" {
		io.Copy(&c.stderr, c.out)
		c.Wait()
		p.t.Fatalf("the child says %q, %v: %s", line, err, c.stderr.String())
	}
	return c
}

// kill ends a child, which must not have ended by itself.
func (p *processes) kill(c *child) {
	p.t.Helper()
	c.Process.Kill()
	rest, _ := io.ReadAll(c.out)
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		p.t.Fatalf("the child ended by itself: %v: %s%s", err, rest, c.stderr.String())
	}
}

// TestStockChild is what a child does; in this process, nothing.
func TestStockChild(t *testing.T) {
	args := strings.Split(os.Getenv(childEnv), "\n")
	if len(args) != 5 {
		return
	}
	does, addr, dir, text, root := args[0], args[1], args[2], args[3], args[4]
	id, err := age.ParseX25519Identity(text)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(err)
	secret, err := hostclient.ReadSecret(dir, id)
	check(err)
	models, err := hostclient.ReadModels(dir)
	check(err)
	client, err := hostclient.Dial(addr)
	check(err)
	s, err := hostclient.Open(t.Context(), secret, models, []*hostclient.Client{client},
		hostclient.Options{Multiplier: kernel, Stock: stockIn(root)})
	check(err)
	if why := s.StockDiscarded(); why != nil {
		t.Fatalf("discarded: %v", why)
	}
	x := gaussian(rand.New(rand.NewPCG(20, 1)), 7)
	infer := func(n int) error {
		_, err := s.Infer(t.Context(), slices.Repeat(x, n), n)
		return err
	}
	fmt.Println("ready")
	switch does {
	case "loop": // for ever
		for n := 1; ; n = n%3 + 1 {
			if s.Stats().Stock < n {
				check(s.Precompute(t.Context(), 4))
			}
			check(infer(n))
		}
	case "hold": // until it is told
		io.Copy(io.Discard, os.Stdin)
	case "full":
		signal.Ignore(unix.SIGXFSZ) // EFBIG instead
		limit := func(bytes uint64) {
			check(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}))
		}
		check(s.Precompute(t.Context(), 4))
		limit(200)
		if err := s.Precompute(t.Context(), 2); !errors.Is(err, unix.EFBIG) || errors.Is(err, hostclient.ErrStockFailed) {
			t.Errorf("pads on a full disk: %v", err)
		}
		if n := s.Stats().Stock; n != 4 {
			t.Errorf("%d samples in stock", n)
		}
		check(infer(1))
		limit(64 + 40) // of the next record, the journal's second, a part
		for range 2 {
			if err := infer(1); !errors.Is(err, unix.EFBIG) || !errors.Is(err, hostclient.ErrStockFailed) {
				t.Errorf("a journal on a full disk: %v", err)
			}
			limit(unix.RLIM_INFINITY) // too late
		}
	}
	check(s.Close())
	check(client.Close())
}

// TestStockKilled kills hosts that use one stock in a loop, at random points:
// whatever they were at, the cloud never sees a pad twice, and the next one goes on
// with what was not burned.
func TestStockKilled(t *testing.T) {
	p := newProcesses(t)
	kills, rows := 25, 0
	if testing.Short() {
		kills = 5
	}
	// A slow machine kills some before they have sent anything.
	for i := 0; i < kills || rows < 2*kills; i++ {
		if i == 20*kills {
			t.Fatalf("the cloud saw %d rows of %d hosts", rows, i)
		}
		c := p.start("loop")
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		p.kill(c)
		rows += p.check(fmt.Sprintf("kill %d", i))
	}
	s, err := p.open(hostclient.Options{Stock: stockIn(p.root)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if why := s.StockDiscarded(); why != nil {
		t.Errorf("discarded: %v", why)
	}
	if err := p.infer(s, s.Stats().Stock+1); err != nil {
		t.Error(err)
	}
	p.check("after all")
}

// TestStockTwoProcesses: one at a time has a stock, until it ends, however it does.
func TestStockTwoProcesses(t *testing.T) {
	p := newProcesses(t)
	c := p.start("hold")
	if s, err := p.open(hostclient.Options{Stock: stockIn(p.root)}); !errors.Is(err, hostclient.ErrStockInUse) || s != nil {
		t.Errorf("a second host: %v", err)
	}
	p.kill(c)
	c = p.start("hold")
	c.in.Close()
	rest, _ := io.ReadAll(c.out)
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, rest)
	}
	s, err := p.open(hostclient.Options{Stock: stockIn(p.root)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestStockDiskFull: without room no pad is made, and without room in the
// journal none is used. A record cut off there discards the stock.
func TestStockDiskFull(t *testing.T) {
	p := newProcesses(t)
	c := p.start("full")
	rest, _ := io.ReadAll(c.out)
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, rest)
	}
	if rows := p.check("full"); rows != 3 { // of one sample, a layer each
		t.Errorf("the cloud saw %d rows", rows)
	}
	s, err := p.open(hostclient.Options{Stock: stockIn(p.root)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if why := s.StockDiscarded(); !errors.Is(why, hostclient.ErrStockJournal) || s.Stats().Stock != 0 {
		t.Errorf("%d in stock, discarded: %v", s.Stats().Stock, why)
	}
	if err := p.infer(s, 4); err != nil {
		t.Error(err)
	}
	p.check("after")
}
