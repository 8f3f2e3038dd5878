package daemon

import (
	"log/slog"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/sealed"
)

// TestLeft: the time that a request waits for memory is taken off what it may still wait.
func TestLeft(t *testing.T) {
	s := newService(config.Default().Limits, slog.New(slog.DiscardHandler), "", t.Context())
	for _, test := range []struct{ own, policy, want time.Duration }{
		{time.Hour, 0, time.Hour}, {0, time.Hour, time.Hour}, {time.Hour, 2 * time.Hour, time.Hour}, {2 * time.Hour, time.Hour, time.Hour}, {0, 0, 0},
	} {
		s.policy = func(sealed.Digest) *batch.Policy { return &batch.Policy{Timeout: test.policy} }
		j := &job{model: &model.Use{Model: new(model.Model)}, left: test.own}
		if err := (&evaluation{service: s}).await(t.Context(), j, true); err != nil {
			t.Fatal(err)
		}
		if want := max(0, test.want-j.waited); j.left != want {
			t.Errorf("%+v: waited for %v, %v are left", test, j.waited, j.left)
		}
	}
}
