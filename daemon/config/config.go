// Package config reads the daemon's configuration. The committed config.toml at
// the root of the repository documents every key and states its default.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/securenets/securenets/internal/wire"
)

// ErrInvalid is what errors.Is finds where a configuration was read but is not
// valid. The error lists every key that is wrong.
var ErrInvalid = errors.New("config: invalid")

// Config is a configuration. Those of Default, Load and Parse are valid; daemon.Run refuses others.
type Config struct {
	Listen string `toml:"listen"` // "unix:/path"
	// SocketMode and SocketGroup are those of the socket of Listen; AllowedUIDs are the
	// users who may call, beside the daemon's own and root.
	SocketMode  string `toml:"socket_mode"`  // "0600", "0660" or "0666"
	SocketGroup string `toml:"socket_group"` // a name or a number; "": the daemon's
	AllowedUIDs []int  `toml:"allowed_uids"`

	StateDir string `toml:"state_dir"` // sealed models and uploads
	Backend  string `toml:"backend"`   // BackendAuto or a backend's name
	Threads  int    `toml:"threads"`   // that compute at a time; 0: one a processor
	// DrainTimeoutSeconds bounds the time from a signal to the exit.
	DrainTimeoutSeconds int `toml:"drain_timeout_seconds"`

	TLS          TLS          `toml:"tls"`
	CUDA         CUDA         `toml:"cuda"`
	Log          Log          `toml:"log"`
	Limits       Limits       `toml:"limits"`
	Residency    Residency    `toml:"residency"`
	SharedMemory SharedMemory `toml:"shared_memory"`
	Batching     Batching     `toml:"batching"`
	Metrics      Metrics      `toml:"metrics"`
}

// Backends that a configuration can name.
const (
	BackendAuto  = "auto"
	BackendCUDA  = "cuda"
	BackendCPU   = "cpu"
	BackendGonum = "gonum"
)

// TLS says where callers of other machines are served: with TLS 1.3, both sides with
// a certificate.
type TLS struct {
	Listen      string `toml:"listen"`      // "tls:ADDRESS:PORT"; "": nowhere
	Certificate string `toml:"certificate"` // file of the daemon's own chain, PEM
	Key         string `toml:"key"`         // file of its key, PEM
	ClientCA    string `toml:"client_ca"`   // file of those who vouch for callers, PEM
	// AllowedNames are the callers who may call, as daemon.CallerName names them;
	// empty: all that ClientCA vouches for.
	AllowedNames []string `toml:"allowed_names"`
}

// CUDA says which devices multiply, and with how much memory.
type CUDA struct {
	Devices     []int  `toml:"devices"`      // ordinals; empty: all
	MemoryBytes int64  `toml:"memory_bytes"` // of each device; 0: nine tenths of what is free
	PinnedBytes int64  `toml:"pinned_bytes"` // of the host's memory, for requests
	Streams     int    `toml:"streams"`      // of each device
	Path        string `toml:"path"`         // of products: PathAuto or one of cuda's
}

// Paths of products on a CUDA device.
const (
	PathAuto    = "auto"
	PathFused   = "fused"
	PathInt8    = "int8"
	PathFloat64 = "float64"
)

// Log says what is logged to standard error.
type Log struct {
	Level  string `toml:"level"`  // LogDebug, LogInfo, LogWarn or LogError: the least that is logged
	Format string `toml:"format"` // LogText or LogJSON
}

// Levels of the log.
const (
	LogDebug = "debug"
	LogInfo  = "info"
	LogWarn  = "warn"
	LogError = "error"
)

// Formats of the log.
const (
	LogText = "text"
	LogJSON = "json"
)

// Limits bound what callers can make the daemon hold.
type Limits struct {
	MaxModels     int   `toml:"max_models"`      // stored or being uploaded
	MaxModelBytes int64 `toml:"max_model_bytes"` // of one sealed model
	// MaxModelsPerCaller and MaxModelBytesPerCaller bound what one caller has stored
	// and is uploading.
	MaxModelsPerCaller     int   `toml:"max_models_per_caller"`
	MaxModelBytesPerCaller int64 `toml:"max_model_bytes_per_caller"`
	// MaxUploadBytesPerSecond is the rate of one caller's uploads; 0: any.
	MaxUploadBytesPerSecond int64 `toml:"max_upload_bytes_per_second"`
	// UploadExpirySeconds is how long an upload that no one goes on with is kept; 0:
	// until its room is wanted.
	UploadExpirySeconds int `toml:"upload_expiry_seconds"`
	// MaxLoadedBytes bounds what the backend holds of models, and what loading takes.
	MaxLoadedBytes int64 `toml:"max_loaded_bytes"`
	// MaxBytesInFlight bounds the memory of all requests and uploads at a time, but
	// for MaxCalls times 64 KiB that gRPC may have received before it is asked to.
	MaxBytesInFlight int64 `toml:"max_bytes_in_flight"`
	// MaxMultiplyAdds bounds the work of one request, padding counted.
	MaxMultiplyAdds int64 `toml:"max_multiply_adds"`
	MaxCalls        int   `toml:"max_calls"` // at a time, of all connections
	// StallTimeoutSeconds is how long a caller may keep the daemon waiting in the
	// middle of something.
	StallTimeoutSeconds int `toml:"stall_timeout_seconds"`
}

// Residency says which models stay in memory.
type Residency struct {
	// Pinned are digests in hexadecimal: these are loaded before the daemon serves, and stay.
	Pinned []string `toml:"pinned"`
}

// SharedMemory bounds what callers on the unix socket may share with the daemon, so that
// words need not go through the socket.
type SharedMemory struct {
	BytesPerConnection int64 `toml:"bytes_per_connection"`
	Bytes              int64 `toml:"bytes"` // of all connections; 0: nothing is shared
}

// Batching says how requests for one operator of one model are merged.
type Batching struct {
	Policy
	// Models has what is different for some models, by digest in hexadecimal.
	Models map[string]Override `toml:"models"`
}

// Policy is that of one model. The keys have Triton's names and meaning.
type Policy struct {
	MaxBatchSize               int `toml:"max_batch_size"` // rows
	MaxQueueDelayMicroseconds  int `toml:"max_queue_delay_microseconds"`
	MaxQueueSize               int `toml:"max_queue_size"`               // requests waiting, of one operator
	DefaultTimeoutMicroseconds int `toml:"default_timeout_microseconds"` // that a request waits; 0: no limit
	PriorityLevels             int `toml:"priority_levels"`              // 0: there are none
	DefaultPriorityLevel       int `toml:"default_priority_level"`
}

// Override is a Policy in which what is nil is that of all models.
type Override struct {
	MaxBatchSize               *int `toml:"max_batch_size"`
	MaxQueueDelayMicroseconds  *int `toml:"max_queue_delay_microseconds"`
	MaxQueueSize               *int `toml:"max_queue_size"`
	DefaultTimeoutMicroseconds *int `toml:"default_timeout_microseconds"`
	PriorityLevels             *int `toml:"priority_levels"`
	DefaultPriorityLevel       *int `toml:"default_priority_level"`
}

// Least returns Level as package slog has it. The level must be valid.
func (l Log) Least() slog.Level {
	var least slog.Level
	_ = least.UnmarshalText([]byte(l.Level))
	return least
}

// For returns the policy of a model, named by its digest in hexadecimal.
func (b Batching) For(model string) Policy {
	p, o := b.Policy, b.Models[model]
	for _, v := range []struct{ to, from *int }{
		{&p.MaxBatchSize, o.MaxBatchSize},
		{&p.MaxQueueDelayMicroseconds, o.MaxQueueDelayMicroseconds},
		{&p.MaxQueueSize, o.MaxQueueSize},
		{&p.DefaultTimeoutMicroseconds, o.DefaultTimeoutMicroseconds},
		{&p.PriorityLevels, o.PriorityLevels},
		{&p.DefaultPriorityLevel, o.DefaultPriorityLevel},
	} {
		if v.from != nil {
			*v.to = *v.from
		}
	}
	return p
}

// Metrics says where the daemon's figures can be read over HTTP.
type Metrics struct {
	// Listen is "unix:/path", "tcp:ADDRESS:PORT" with an address of the loopback
	// interface, or "" for nowhere. Port 0 stands for one that is free.
	Listen string `toml:"listen"`
}

// Address returns what Listen stands for, as net.Listen takes it; "" twice for nowhere.
func (m Metrics) Address() (network, address string, err error) {
	if m.Listen == "" {
		return "", "", nil
	}
	hostport, ok := strings.CutPrefix(m.Listen, "tcp:")
	if !ok {
		path, err := wire.SocketPath(m.Listen)
		if err != nil {
			return "", "", fmt.Errorf("%w, or tcp:ADDRESS:PORT", err)
		}
		return "unix", path, nil
	}
	at, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return "", "", fmt.Errorf("%q: want the number of an address, and a port", m.Listen)
	}
	if !at.Addr().IsLoopback() {
		return "", "", fmt.Errorf("%q: want an address of the loopback interface, as figures are not encrypted", m.Listen)
	}
	return "tcp", at.String(), nil
}

// DrainTimeout returns DrainTimeoutSeconds as a duration.
func (c Config) DrainTimeout() time.Duration {
	return time.Duration(c.DrainTimeoutSeconds) * time.Second
}

// StallTimeout returns StallTimeoutSeconds as a duration.
func (l Limits) StallTimeout() time.Duration {
	return time.Duration(l.StallTimeoutSeconds) * time.Second
}

// UploadExpiry returns UploadExpirySeconds as a duration.
func (l Limits) UploadExpiry() time.Duration {
	return time.Duration(l.UploadExpirySeconds) * time.Second
}

// MaxQueueDelay returns MaxQueueDelayMicroseconds as a duration.
func (p Policy) MaxQueueDelay() time.Duration {
	return time.Duration(p.MaxQueueDelayMicroseconds) * time.Microsecond
}

// DefaultTimeout returns DefaultTimeoutMicroseconds as a duration.
func (p Policy) DefaultTimeout() time.Duration {
	return time.Duration(p.DefaultTimeoutMicroseconds) * time.Microsecond
}

// minBytesInFlight lets one message of an upload pass and, beside it, one request that
// waits for its model and the largest one over a ring of 3- or 4-byte words.
const minBytesInFlight = 9 * wire.MaxMessage

// minUploadRate keeps an upload's next message from taking longer than a host waits.
const minUploadRate = 1 << 20

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		Listen:              "unix:/run/securenets/securenetsd.sock",
		StateDir:            "/var/lib/securenets",
		SocketMode:          "0600",
		AllowedUIDs:         []int{},
		TLS:                 TLS{AllowedNames: []string{}},
		Backend:             BackendAuto,
		DrainTimeoutSeconds: 30,
		CUDA:                CUDA{Devices: []int{}, PinnedBytes: 256 << 20, Streams: 8, Path: PathAuto},
		Log:                 Log{Level: LogInfo, Format: LogText},
		Limits: Limits{
			MaxModels: 64, MaxModelBytes: 1 << 30, MaxModelsPerCaller: 64, MaxModelBytesPerCaller: 64 << 30,
			MaxLoadedBytes: 8 << 30, MaxBytesInFlight: 512 << 20,
			MaxMultiplyAdds: 1 << 37, MaxCalls: 16384, StallTimeoutSeconds: 30, UploadExpirySeconds: 7 * 24 * 3600,
		},
		Residency:    Residency{Pinned: []string{}},
		SharedMemory: SharedMemory{BytesPerConnection: 64 << 20, Bytes: 1 << 30},
		Batching:     Batching{Policy: Policy{MaxBatchSize: 4096, MaxQueueSize: 256}},
	}
}

// Load reads the file at path. Its errors wrap ErrInvalid, or are those of
// reading a file.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	c, err := Parse(string(text))
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse reads a configuration. Keys that are missing have their defaults; keys
// that are unknown are errors.
func Parse(text string) (Config, error) {
	c := Default()
	meta, err := toml.Decode(text, &c)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var wrong []error
	for _, k := range meta.Undecoded() {
		wrong = append(wrong, fmt.Errorf("unknown key %s", k))
	}
	for _, k := range meta.Keys() { // toml takes keys in any case
		if s := k.String(); s != strings.ToLower(s) && len(wrong) == 0 {
			wrong = append(wrong, fmt.Errorf("unknown key %s: keys are in lower case", k))
		}
	}
	if err := invalid(append(wrong, c.wrong()...)); err != nil {
		return Config{}, err
	}
	return c, nil
}
