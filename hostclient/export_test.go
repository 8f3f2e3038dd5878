package hostclient

import "time"

// SetTimeout sets how long a client waits for anything but Evaluate.
func (c *Client) SetTimeout(d time.Duration) { c.timeout = d }

// SetBlock sets how many samples are in work at once.
func (ss *Session) SetBlock(n int) { ss.block = n }

// Marshal returns the plaintext of a secret file, UnmarshalSecret reads it.
func (s *Secret) Marshal() ([]byte, error) { return s.marshal() }

var UnmarshalSecret = unmarshalSecret

// SealGraph is Seal without ONNX.
var SealGraph = seal
