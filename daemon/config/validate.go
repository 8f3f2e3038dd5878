package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

// Validate returns an error that wraps ErrInvalid and names every key whose
// value is out of range.
func (c Config) Validate() error { return invalid(c.wrong()) }

// invalid returns an error that wraps ErrInvalid and says all that is wrong, each on a line of
// its own if there are several.
func invalid(wrong []error) error {
	switch len(wrong) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %w", ErrInvalid, wrong[0])
	default:
		return fmt.Errorf("%w:\n%w", ErrInvalid, errors.Join(wrong...))
	}
}

func (c Config) wrong() []error {
	var k checker
	_, err := wire.SocketPath(c.Listen)
	k.address("listen", err)
	k.among("socket_mode", c.SocketMode, "0600", "0660", "0666")
	for i, u := range c.AllowedUIDs {
		k.within(fmt.Sprintf("allowed_uids[%d]", i), int64(u), 0, math.MaxUint32-1)
	}
	k.tls(c.TLS)
	if c.StateDir == "" {
		k.bad("state_dir", "is empty")
	}
	k.among("backend", c.Backend, BackendAuto, BackendCUDA, BackendCPU, BackendGonum)
	k.cuda(c.CUDA)
	k.within("threads", int64(c.Threads), 0, 1024)
	k.within("drain_timeout_seconds", int64(c.DrainTimeoutSeconds), 0, 3600)
	k.among("log.level", c.Log.Level, LogDebug, LogInfo, LogWarn, LogError)
	k.among("log.format", c.Log.Format, LogText, LogJSON)
	k.limits(c.Limits)
	for i, model := range c.Residency.Pinned {
		k.digest(fmt.Sprintf("residency.pinned[%d]", i), model)
	}
	k.sharedMemory(c.SharedMemory)
	k.batching(c.Batching)
	_, _, err = c.Metrics.Address()
	k.address("metrics.listen", err)
	return k.wrong
}

// checker collects what is wrong with a configuration, key by key.
type checker struct{ wrong []error }

func (k *checker) bad(key, format string, a ...any) {
	k.wrong = append(k.wrong, fmt.Errorf("%s %s", key, fmt.Sprintf(format, a...)))
}

// address reports the error of a key's address, if there is one.
func (k *checker) address(key string, err error) {
	if err != nil {
		k.bad(key, "is not an address: %s", strings.TrimPrefix(err.Error(), wire.ErrAddress.Error()+" "))
	}
}

func (k *checker) within(key string, v, lo, hi int64) {
	if v < lo || v > hi {
		k.bad(key, "is %d, want %d to %d", v, lo, hi)
	}
}

func (k *checker) among(key, v string, want ...string) {
	if !slices.Contains(want, v) {
		k.bad(key, "is %q, want one of %q", v, want)
	}
}

// digest wants a model's digest, and reports whether v is one.
func (k *checker) digest(key, v string) bool {
	b, err := hex.DecodeString(v)
	if err != nil || len(b) != sha256.Size || v != strings.ToLower(v) {
		k.bad(key, "is not the digest of a model: want 64 hexadecimal digits in lower case")
		return false
	}
	return true
}

func (k *checker) tls(t TLS) {
	if t.Listen != "" {
		_, _, err := wire.HostPort(t.Listen)
		k.address("tls.listen", err)
		for _, f := range []struct{ key, file string }{{"certificate", t.Certificate}, {"key", t.Key}, {"client_ca", t.ClientCA}} {
			if f.file == "" {
				k.bad("tls."+f.key, "is empty: over TCP both sides have a certificate")
			}
		}
	}
	for i, name := range t.AllowedNames {
		if kind, rest, _ := strings.Cut(name, ":"); rest == "" || kind != "uri" && kind != "dns" && kind != "cn" {
			k.bad(fmt.Sprintf("tls.allowed_names[%d]", i), "is %q, want uri:, dns: or cn: and a name", name)
		}
	}
}

func (k *checker) cuda(c CUDA) {
	for i, d := range c.Devices {
		k.within(fmt.Sprintf("cuda.devices[%d]", i), int64(d), 0, 1023)
	}
	k.within("cuda.memory_bytes", c.MemoryBytes, 0, 1<<50)
	k.within("cuda.pinned_bytes", c.PinnedBytes, 0, 1<<50)
	k.within("cuda.streams", int64(c.Streams), 1, 64)
	k.among("cuda.path", c.Path, PathAuto, PathFused, PathInt8, PathFloat64)
}

func (k *checker) limits(l Limits) {
	k.within("limits.max_models", int64(l.MaxModels), 1, 1<<16)
	k.within("limits.max_model_bytes", l.MaxModelBytes, 1, plan.MaxExtent*4)
	k.within("limits.max_models_per_caller", int64(l.MaxModelsPerCaller), 1, 1<<16)
	k.within("limits.max_model_bytes_per_caller", l.MaxModelBytesPerCaller, 1, 1<<50)
	if l.MaxUploadBytesPerSecond != 0 {
		k.within("limits.max_upload_bytes_per_second", l.MaxUploadBytesPerSecond, minUploadRate, 1<<50)
	}
	k.within("limits.max_bytes_in_flight", l.MaxBytesInFlight, minBytesInFlight, 1<<50)
	k.within("limits.max_loaded_bytes", l.MaxLoadedBytes, 1, 1<<50)
	k.within("limits.max_multiply_adds", l.MaxMultiplyAdds, 1, 1<<50)
	k.within("limits.max_calls", int64(l.MaxCalls), 1, 1<<20)
	k.within("limits.stall_timeout_seconds", int64(l.StallTimeoutSeconds), 1, 3600)
	if l.UploadExpirySeconds != 0 {
		k.within("limits.upload_expiry_seconds", int64(l.UploadExpirySeconds), 3600, 1<<30)
	}
}

func (k *checker) sharedMemory(s SharedMemory) {
	k.within("shared_memory.bytes", s.Bytes, 0, lane.MaxSize)
	k.within("shared_memory.bytes_per_connection", s.BytesPerConnection, lane.Grain, lane.MaxSize)
	if s.Bytes > 0 && s.BytesPerConnection > s.Bytes {
		k.bad("shared_memory.bytes_per_connection", "is %d, more than shared_memory.bytes", s.BytesPerConnection)
	}
}

func (k *checker) batching(b Batching) {
	k.policy("batching", b.Policy)
	for _, model := range slices.Sorted(maps.Keys(b.Models)) {
		if table := "batching.models." + model; k.digest(table, model) {
			k.policy(table, b.For(model))
		}
	}
}

func (k *checker) policy(table string, p Policy) {
	k.within(table+".max_batch_size", int64(p.MaxBatchSize), 1, 1<<20)
	k.within(table+".max_queue_delay_microseconds", int64(p.MaxQueueDelayMicroseconds), 0, 10_000_000)
	k.within(table+".max_queue_size", int64(p.MaxQueueSize), 1, 1<<16)
	k.within(table+".default_timeout_microseconds", int64(p.DefaultTimeoutMicroseconds), 0, 3_600_000_000)
	k.within(table+".priority_levels", int64(p.PriorityLevels), 0, 1<<16)
	k.within(table+".default_priority_level", int64(p.DefaultPriorityLevel), min(1, int64(p.PriorityLevels)), max(0, int64(p.PriorityLevels)))
}
