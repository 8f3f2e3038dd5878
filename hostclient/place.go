package hostclient

import (
	"errors"
	"fmt"
	"slices"
)

// Place says which linear layers are sent to clouds. Layers that are kept are computed on
// the host, in the same integers, so that results are the same bit for bit. They are not
// in the sealed models, and no cloud receives anything of them, but shapes and times can
// show that they exist (docs/threat-model.md). Their products are the host's own, and not
// checked.
type Place string

const (
	// PlaceAll sends every layer.
	PlaceAll Place = "all"
	// PlaceAuto keeps a layer if that costs the host less CPU time online. Sealing
	// measures both ways, with its own machine and Multiplier. The cost of pads
	// beforehand is measured and reported, but decides nothing: a pad takes the product
	// itself, so by the total no scheme with pads would send anything.
	PlaceAuto Place = "auto"
)

// ErrPlace reports a Place that does not exist.
var ErrPlace = errors.New("hostclient: unknown placement")

// ParsePlace reads a Place's text.
func ParsePlace(s string) (Place, error) {
	if p := Place(s); p == PlaceAll || p == PlaceAuto {
		return p, nil
	}
	return "", fmt.Errorf("%w %.32q, want %s or %s", ErrPlace, s, PlaceAll, PlaceAuto)
}

// Link is how sessions reach their clouds, which decides what sending costs.
type Link string

const (
	// LinkShared is a unix socket whose daemon shares memory: see SharedMemory.
	LinkShared Link = "shared"
	// LinkSocket is a unix socket alone.
	LinkSocket Link = "socket"
	// LinkTLS is TLS over TCP.
	LinkTLS Link = "tls"
)

// Links returns all that there are, the default first.
func Links() []Link { return []Link{LinkShared, LinkSocket, LinkTLS} }

// ErrLink reports a Link that does not exist.
var ErrLink = errors.New("hostclient: unknown link")

// ParseLink reads a Link's text.
func ParseLink(s string) (Link, error) {
	if l := Link(s); slices.Contains(Links(), l) {
		return l, nil
	}
	return "", fmt.Errorf("%w %.32q, want one of %q", ErrLink, s, Links())
}

// LinkCost is what a link costs the host, in nanoseconds of CPU time, medians over a few
// rounds.
type LinkCost struct {
	Link    Link    `json:"link"`
	Message float64 `json:"message_ns"` // a request and its answer, however short
	Word    float64 `json:"word_ns"`    // a word sent or received
}

// LayerCost is what a layer costs the host per sample, if sent and if kept, as sealing
// measured it: the process's CPU time in nanoseconds, medians over a few rounds. Both
// ways begin and end with float activations.
type LayerCost struct {
	Batch     int   `json:"batch"`        // samples a call that was measured
	WordsUp   int64 `json:"words_up"`     // a sample, where it is sent; to all clouds
	WordsDown int64 `json:"words_down"`   // from all clouds
	Passes    int64 `json:"passes_ns"`    // sent: quantisation, masks, the check and back to floats
	Transport int64 `json:"transport_ns"` // sent: this end of the connection
	Pads      int64 `json:"pads_ns"`      // sent: pads, beforehand
	Keep      int64 `json:"keep_ns"`      // kept: quantisation, the product and back to floats
	Product   int64 `json:"product_ns"`   // of it the product
}

// Send returns what the layer costs online if it is sent.
func (c LayerCost) Send() int64 { return c.Passes + c.Transport }

// Saving returns what keeping the layer saves online. A negative value is what sending it
// saves.
func (c LayerCost) Saving() int64 { return c.Send() - c.Keep }

// mostCost is above any cost in nanoseconds, so that sums over all layers fit.
const mostCost = 1 << 53

// valid reports whether c can have been measured.
func (c LayerCost) valid() bool {
	return c.Batch >= 1 && !slices.ContainsFunc(
		[]int64{c.WordsUp, c.WordsDown, c.Passes, c.Transport, c.Pads, c.Keep, c.Product},
		func(v int64) bool { return v < 0 || v > mostCost })
}

// validLinks reports whether c can have been measured: by an earlier version, none.
func validLinks(c []LinkCost) bool {
	for i, l := range c {
		if _, err := ParseLink(string(l.Link)); err != nil || !(l.Message >= 0 && l.Message <= mostCost && l.Word >= 0 && l.Word <= mostCost) ||
			slices.ContainsFunc(c[:i], func(before LinkCost) bool { return before.Link == l.Link }) {
			return false
		}
	}
	return true
}
