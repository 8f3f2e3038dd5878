package config_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon/config"
)

// TestCommitted: the committed file states every default.
func TestCommitted(t *testing.T) {
	const path = "../../config.toml"
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, config.Default()) {
		t.Errorf("got %+v, want %+v", c, config.Default())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("testdata/good/all.toml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if key, _, ok := strings.Cut(line, " ="); ok && !strings.Contains(string(text), "\n"+key+" =") {
			t.Errorf("%s does not document %s", path, key)
		}
	}
}

func TestGood(t *testing.T) {
	c, err := config.Load("testdata/good/empty.toml")
	if err != nil || !reflect.DeepEqual(c, config.Default()) {
		t.Errorf("empty: %+v, %v", c, err)
	}
	const model = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	eight, none := 8, 0
	want := config.Config{
		Listen: "unix:/tmp/s", SocketMode: "0660", SocketGroup: "users", AllowedUIDs: []int{1000, 1001},
		TLS:      config.TLS{Listen: "tls:[::]:7443", Certificate: "c.pem", Key: "k.pem", ClientCA: "ca.pem", AllowedNames: []string{"dns:host.example", "cn:a"}},
		StateDir: "state", Backend: config.BackendGonum, Threads: 3,
		CUDA: config.CUDA{Devices: []int{0, 2}, MemoryBytes: 1 << 30, PinnedBytes: 4096, Streams: 2, Path: config.PathInt8},
		Log:  config.Log{Level: config.LogDebug, Format: config.LogJSON},
		Limits: config.Limits{
			MaxModels: 1, MaxModelBytes: 4096, MaxModelsPerCaller: 2, MaxModelBytesPerCaller: 5000, MaxUploadBytesPerSecond: 1 << 20,
			MaxLoadedBytes: 8192, MaxBytesInFlight: 144 << 20,
			MaxMultiplyAdds: 1000, MaxCalls: 7, StallTimeoutSeconds: 5, UploadExpirySeconds: 7200,
		},
		Residency:    config.Residency{Pinned: []string{model}},
		SharedMemory: config.SharedMemory{BytesPerConnection: 1 << 16, Bytes: 1 << 17},
		Batching: config.Batching{
			Policy: config.Policy{MaxBatchSize: 1, MaxQueueDelayMicroseconds: 500, MaxQueueSize: 2,
				DefaultTimeoutMicroseconds: 7000, PriorityLevels: 3, DefaultPriorityLevel: 2},
			Models: map[string]config.Override{model: {MaxBatchSize: &eight, DefaultTimeoutMicroseconds: &none}},
		},
		Metrics: config.Metrics{Listen: "tcp:[::1]:9000"},
	}
	c, err = config.Load("testdata/good/all.toml")
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("all: got %+v, %v, want %+v", c, err, want)
	}
	if d := c.Batching.MaxQueueDelay(); d != 500*time.Microsecond {
		t.Errorf("queue delay %v", d)
	}
	if d := c.Batching.DefaultTimeout(); d != 7*time.Millisecond {
		t.Errorf("default timeout %v", d)
	}
	off, err := config.Load("testdata/good/shared-off.toml")
	if err != nil || off.SharedMemory.Bytes != 0 {
		t.Errorf("shared memory off: %+v, %v", off.SharedMemory, err)
	}
	own := want.Batching.Policy
	if got := c.Batching.For("another"); got != own {
		t.Errorf("another model has %+v", got)
	}
	own.MaxBatchSize, own.DefaultTimeoutMicroseconds = 8, 0
	if got := c.Batching.For(model); got != own {
		t.Errorf("the model has %+v, want %+v", got, own)
	}
	if d := c.Limits.StallTimeout(); d != 5*time.Second {
		t.Errorf("stall timeout %v", d)
	}
	if d := c.Limits.UploadExpiry(); d != 2*time.Hour {
		t.Errorf("upload expiry %v", d)
	}
	if d := config.Default().DrainTimeout(); d != 30*time.Second {
		t.Errorf("drain timeout %v", d)
	}
}

// TestBad: the first line of each file says what its error contains.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		want, ok := strings.CutPrefix(first, "# want: ")
		if !ok {
			t.Fatalf("%s does not say what it wants", f)
		}
		c, err := config.Load(f)
		if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), f) {
			t.Errorf("%s: error %v, want %s", f, err, want)
		}
		if !reflect.DeepEqual(c, config.Config{}) {
			t.Errorf("%s: a configuration came with the error", f)
		}
	}
}

func TestEveryErrorIsListed(t *testing.T) {
	_, err := config.Parse("threads = -1\nx = 1\n[log]\nlevel = \"loud\"\n[batching]\nmax_queue_size = 0\ny = 1\n")
	for _, want := range []string{"threads", "key x", "log.level", "batching.max_queue_size", "key batching.y"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestLogLevels(t *testing.T) {
	for level, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		c, err := config.Parse("[log]\nlevel = \"" + level + "\"\n")
		if err != nil || c.Log.Least() != want {
			t.Errorf("%s: %v, %v", level, c.Log.Least(), err)
		}
	}
}

func TestMetricsAddress(t *testing.T) {
	for listen, want := range map[string][2]string{
		"":                   {},
		"unix:/run/m":        {"unix", "/run/m"},
		"tcp:127.0.0.1:8002": {"tcp", "127.0.0.1:8002"},
		"tcp:127.9.0.1:0":    {"tcp", "127.9.0.1:0"},
		"tcp:[::1]:8002":     {"tcp", "[::1]:8002"},
	} {
		network, address, err := config.Metrics{Listen: listen}.Address()
		if err != nil || network != want[0] || address != want[1] {
			t.Errorf("%q: %q %q, %v", listen, network, address, err)
		}
	}
	for _, listen := range []string{
		"unix:", "unix:@m", "/run/m", "tcp:", "tcp:127.0.0.1", "tcp::8002", "tcp:0.0.0.0:8002", "tcp:10.0.0.1:8002", "tcp:[::]:8002",
		"tcp:localhost:8002", "tcp:127.0.0.1:65536", "127.0.0.1:8002", "http://127.0.0.1:8002",
	} {
		if _, _, err := (config.Metrics{Listen: listen}).Address(); err == nil {
			t.Errorf("%q is accepted", listen)
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := config.Load("testdata/none.toml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
