package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/securenets/securenets/internal/wire"
)

// TestRooms: an owner's streams share one room, which is forgotten with the last of them.
func TestRooms(t *testing.T) {
	in := newIncoming(8 * wire.MaxMessage)
	a, b := in.join("uid-1"), in.join("uid-2")
	if in.join("uid-1") != a || a == b {
		t.Fatal("rooms are mixed up")
	}
	full := func(r *room) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return r.Acquire(ctx, 1) != nil
	}
	if err := a.Acquire(t.Context(), in.most); err != nil {
		t.Fatal(err)
	}
	if !full(a) {
		t.Error("an owner has more than its share")
	}
	if err := b.Acquire(t.Context(), in.most); err != nil {
		t.Fatal(err)
	}
	c := in.join("uid-3")
	if !full(c) {
		t.Error("owners have more than there is")
	}
	a.Release(in.most)
	if err := c.Acquire(t.Context(), in.most); err != nil { // what it did not get, it does not hold
		t.Error(err)
	}
	b.Release(in.most)
	c.Release(in.most)
	for _, r := range []*room{a, b, c} {
		r.leave()
	}
	if len(in.rooms) != 1 || in.Used() != 0 {
		t.Errorf("%d rooms are left, %d bytes used", len(in.rooms), in.Used())
	}
	if a.leave(); len(in.rooms) != 0 {
		t.Error("a room is left")
	}
}
