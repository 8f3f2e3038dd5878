package daemon

import (
	"testing"
	"time"

	"github.com/securenets/securenets/daemon/model"
)

// TestUploadRate: one caller's uploads share its rate, another's are not delayed.
func TestUploadRate(t *testing.T) {
	p := pacer{rate: 1000, paid: map[model.Owner]time.Time{}}
	now := time.Unix(0, 0)
	for i, step := range []struct {
		owner model.Owner
		after time.Duration
		bytes int
		wait  time.Duration
	}{
		{"uid-1", 0, 500, 0},
		{"uid-1", 0, 2000, 500 * time.Millisecond},
		{"uid-2", 0, 1000, 0},
		{"uid-1", time.Second, 100, 1500 * time.Millisecond},
		{"uid-2", 0, 1, 0},
		{"uid-1", 10 * time.Second, 100, 0}, // unused rate is not saved up
		{"uid-1", 0, 100, 100 * time.Millisecond},
	} {
		now = now.Add(step.after)
		if got := p.take(step.owner, step.bytes, now); got != step.wait {
			t.Errorf("step %d: %v, want %v", i, got, step.wait)
		}
	}
	if p.take("uid-3", 1, now.Add(time.Hour)); len(p.paid) != 1 {
		t.Errorf("%d callers are kept", len(p.paid))
	}
	free := pacer{}
	if d := free.take("uid-1", 1<<40, now); d != 0 {
		t.Errorf("without a limit: %v", d)
	}
}
