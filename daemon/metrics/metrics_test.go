package metrics_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

func text(m *metrics.Metrics) string {
	w := httptest.NewRecorder()
	m.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestModels: a model's figures are one for all who hold it, go with the last, and
// begin anew.
func TestModels(t *testing.T) {
	m := metrics.New()
	d := sealed.Sum([]byte("a model"))
	line := `nv_inference_request_success{model="` + d.String() + `"} `
	has := func(want string) {
		t.Helper()
		if all := text(m); !strings.Contains(all, line+want+"\n") {
			t.Errorf("%s is not %s", line, want)
		}
	}
	one, two := m.Model(d), m.Model(d)
	one.Answered(metrics.Request{Rows: 3})
	two.Answered(metrics.Request{Rows: 4})
	has("2")
	one.Drop()
	has("2")
	two.Drop()
	two.Answered(metrics.Request{Rows: 5}) // of a request under way
	two.Failed(wire.ReasonInternal)
	if all := text(m); strings.Contains(all, d.String()) {
		t.Errorf("after the last one dropped it:\n%s", all)
	}
	m.Model(d).Answered(metrics.Request{Rows: 6})
	has("1")
}

// TestReasons: those that the program does not list are not shown.
func TestReasons(t *testing.T) {
	m := metrics.New()
	for _, r := range append([]wire.Reason{metrics.Cancelled, metrics.Protocol, metrics.Stalled, metrics.Stranger}, wire.Reasons...) {
		m.Refused(r)
		if all := text(m); !strings.Contains(all, `securenets_refusals_total{reason="`+string(r)+`"} 1`) {
			t.Errorf("%s is not counted", r)
		}
	}
	m.Refused("ANOTHER")
	if all := text(m); strings.Contains(all, "ANOTHER") || !strings.Contains(all, `securenets_refusals_total{reason="INTERNAL"} 2`) {
		t.Error("a reason that is not listed")
	}
}

// BenchmarkAnswered is what an answered request costs more.
func BenchmarkAnswered(b *testing.B) {
	m := metrics.New()
	f := m.Model(sealed.Sum(nil))
	for i := 0; b.Loop(); i++ {
		took := time.Duration(i%1000+1) * time.Microsecond
		m.Received(4096, took)
		m.Sent(4096, took)
		if i&1 == 1 {
			f.Computed(2)
		}
		f.Answered(metrics.Request{Rows: 1, Total: 4 * took, Input: took, Queue: took, Compute: took})
	}
}
