package hostclient

import (
	"bytes"
	"context"
	"time"

	"filippo.io/age"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// RoleFile names the sealed model of a role.
func RoleFile(role, roles int) string { return roleFile(role, roles) }

// FailSyncDir makes folders fail to become durable with err, until restore is called.
func FailSyncDir(err error) (restore func()) {
	was := syncDir
	syncDir = func(string) error { return err }
	return func() { syncDir = was }
}

// SetTimeout sets how long a client waits for anything but Evaluate.
func (c *Client) SetTimeout(d time.Duration) { c.timeout = d }

// Waiting returns how many answers have a place to go.
func (c *Client) Waiting() (n int) {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	for _, a := range c.stream.waiting {
		if a.done != nil {
			n++
		}
	}
	return n
}

// Destinations returns the places of the answers that have one.
func (c *Client) Destinations() (words [][]uint32) {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	for _, a := range c.stream.waiting {
		if a.done != nil {
			words = append(words, a.dst)
		}
	}
	return words
}

// AnswerMemory returns memory for the next answer of so many words, for good.
func AnswerMemory(n int) []uint32 { return answered.Get(n) }

// Entries returns how many ids the stream keeps.
func (c *Client) Entries() int {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return len(c.stream.waiting)
}

// SetBlock sets how many samples a part of a batch has, and has one in work at a time.
func (ss *Session) SetBlock(n int) { ss.block, ss.parts = n, 1 }

// Sheets returns the samples of each sheet in a stock in memory.
func (ss *Session) Sheets() (samples []int) {
	st := ss.stock.(*memoryStock)
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, sh := range st.sheets {
		samples = append(samples, sh.n)
	}
	return samples
}

// SetParts sets how many parts of a batch are in work at once.
func (ss *Session) SetParts(n int) { ss.parts = n }

// Marshal returns the plaintext of a secret file, UnmarshalSecret reads it.
func (s *Secret) Marshal() ([]byte, error) {
	var b bytes.Buffer
	err := s.marshal(&b, nil)
	return b.Bytes(), err
}

func UnmarshalSecret(b []byte) (*Secret, error) {
	return unmarshalSecret(bytes.NewReader(b), int64(len(b)))
}

// DecryptFile is what ReadSecret does with a file.
func DecryptFile(b []byte, with ...age.Identity) (*Secret, error) {
	return decryptFile(bytes.NewReader(b), int64(len(b)), with)
}

// SealGraph is Seal without ONNX.
var SealGraph = seal

// Costing returns o with PlaceAuto, as if layer l cost costs[l].
func (o SealOptions) Costing(costs ...LayerCost) SealOptions {
	o.Place = PlaceAuto
	o.measure = func(context.Context, layer, plan.Op, ring.Matrix, []ring.Matrix) (LayerCost, error) {
		c := costs[0]
		costs = costs[1:]
		return c, nil
	}
	return o
}

// SharedFree returns how many bytes of the memory that the client shares are in no slot.
func (c *Client) SharedFree() (n int) {
	var taken []lane.Slot
	for size := lane.Grain; size > 0; size /= 2 {
		for {
			slot, ok := c.stream.direct.Get(size)
			if !ok {
				break
			}
			n += size
			taken = append(taken, slot)
		}
	}
	for _, slot := range taken {
		slot.Put()
	}
	return n
}
