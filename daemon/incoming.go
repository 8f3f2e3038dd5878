package daemon

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/wire"
)

// incoming is the memory for messages. Each owner has at most a share of it at a time: one
// that announces messages and does not send them leaves room for those of others.
type incoming struct {
	*budget
	most int64 // bytes of a share

	mu    sync.Mutex
	rooms map[model.Owner]*room // of owners with streams
}

// room is the share of one owner.
type room struct {
	of      *incoming
	owner   model.Owner
	own     *semaphore.Weighted
	streams int // guarded by of.mu
}

func newIncoming(limit int64) *incoming {
	return &incoming{budget: newBudget(limit), most: max(uploadCopies*wire.MaxMessage, limit/2), rooms: map[model.Owner]*room{}}
}

// join returns the room of a stream's owner. The stream must call leave once it has released
// all that it reserved.
func (in *incoming) join(o model.Owner) *room {
	in.mu.Lock()
	defer in.mu.Unlock()
	r, ok := in.rooms[o]
	if !ok {
		r = &room{of: in, owner: o, own: semaphore.NewWeighted(in.most)}
		in.rooms[o] = r
	}
	r.streams++
	return r
}

func (r *room) leave() {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	if r.streams--; r.streams == 0 {
		delete(r.of.rooms, r.owner)
	}
}

// Acquire waits until n bytes are free, first of the share and then of all, and reserves them.
func (r *room) Acquire(ctx context.Context, n int64) error {
	if err := r.own.Acquire(ctx, n); err != nil {
		return err
	}
	err := r.of.Acquire(ctx, n)
	if err != nil {
		r.own.Release(n)
	}
	return err
}

// Release gives n reserved bytes back.
func (r *room) Release(n int64) {
	r.of.Release(n)
	r.own.Release(n)
}
