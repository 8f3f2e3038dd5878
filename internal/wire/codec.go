package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	stock "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
)

// ErrMessage reports bytes that are not a protobuf message of the wanted type, or a value
// that cannot be sent.
var ErrMessage = errors.New("wire: bad message")

// Field numbers of EvaluateRequest and EvaluateResponse.
const (
	requestID, requestModel, requestLayer, requestRows, requestWords, requestSeed, requestTimeout, requestPriority, requestShared, requestAnswer = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

	responseID, responseWords, responseError, responseQueue, responseCompute, responseShared = 1, 2, 3, 4, 5, 6

	spanOffset, spanLength = 1, 2

	seedKey, seedFirst = 1, 2
)

// Of a field that is valid with one length only, this much is kept: enough to refuse it.
const (
	mostModel = sha256.Size + 1
	mostKey   = 32 + 1
)

// headBytes has room for all fields of a message except words, seed and error.
const headBytes = 128

// Codec is gRPC's codec "proto", except that it does not copy the words of *Request and
// *Response: words are sent from their own memory, and received words are views of the
// transport's buffers.
type Codec struct{}

var _ encoding.CodecV2 = Codec{}

// Name returns "proto", so that stock clients and servers interoperate.
func (Codec) Name() string { return stock.Name }

// Marshal encodes v. The result holds its own references to v's words.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *Request:
		return v.marshal()
	case *Response:
		return v.marshal()
	default:
		return encoding.GetCodecV2(stock.Name).Marshal(v)
	}
}

// Unmarshal decodes a message into v. v's words hold their own references to b's buffers.
func (Codec) Unmarshal(b mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *Request:
		return v.unmarshal(b)
	case *Response:
		return v.unmarshal(b)
	default:
		return encoding.GetCodecV2(stock.Name).Unmarshal(b, v)
	}
}

func (r *Request) marshal() (mem.BufferSlice, error) {
	if several(r.Words != nil, r.Seed != nil, r.Shared != nil) {
		return nil, fmt.Errorf("%w: more than one of words, seed and shared", ErrMessage)
	}
	h := appendUint(make([]byte, 0, headBytes), requestID, r.ID)
	if len(r.Model) > 0 {
		h = protowire.AppendTag(h, requestModel, protowire.BytesType)
		h = protowire.AppendBytes(h, r.Model)
	}
	h = appendUint(h, requestLayer, uint64(r.Layer))
	h = appendUint(h, requestRows, uint64(r.Rows))
	h = appendUint(h, requestTimeout, r.TimeoutNS)
	h = appendUint(h, requestPriority, uint64(r.Priority))
	h = appendSpan(h, requestShared, r.Shared)
	h = appendSpan(h, requestAnswer, r.Answer)
	if r.Seed != nil {
		return appendMessage(h, requestSeed, r.Seed)
	}
	return appendWords(h, requestWords, r.Words), nil
}

func (r *Response) marshal() (mem.BufferSlice, error) {
	if several(r.Words != nil, r.Err != nil, r.Shared != nil) {
		return nil, fmt.Errorf("%w: more than one of words, error and shared", ErrMessage)
	}
	// Protobuf allows any order of fields: words go last.
	h := appendUint(make([]byte, 0, headBytes), responseID, r.ID)
	h = appendUint(h, responseQueue, r.QueueNS)
	h = appendUint(h, responseCompute, r.ComputeNS)
	h = appendSpan(h, responseShared, r.Shared)
	if r.Err != nil {
		return appendMessage(h, responseError, r.Err)
	}
	return appendWords(h, responseWords, r.Words), nil
}

// appendUint appends a number, unless it is 0, which proto3 leaves out.
func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendSpan appends a span, unless it is nil.
func appendSpan(b []byte, field protowire.Number, s *Span) []byte {
	if s == nil {
		return b
	}
	inner := appendUint(appendUint(make([]byte, 0, 24), spanOffset, s.Offset), spanLength, s.Length)
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), inner)
}

func appendMessage(h []byte, field protowire.Number, m proto.Message) (mem.BufferSlice, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	h = protowire.AppendTag(h, field, protowire.BytesType)
	return mem.BufferSlice{mem.SliceBuffer(protowire.AppendBytes(h, b))}, nil
}

// appendWords ends a message with its words, unless they are nil.
func appendWords(h []byte, field protowire.Number, words mem.BufferSlice) mem.BufferSlice {
	if words == nil {
		return mem.BufferSlice{mem.SliceBuffer(h)}
	}
	h = protowire.AppendTag(h, field, protowire.BytesType)
	h = protowire.AppendVarint(h, uint64(words.Len()))
	words.Ref()
	return append(mem.BufferSlice{mem.SliceBuffer(h)}, words...)
}

func (r *Request) unmarshal(b mem.BufferSlice) error {
	*r = Request{}
	err := eachField(b, func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error) {
		switch {
		case num == requestID && typ == protowire.VarintType:
			r.ID, err = c.varint()
		case num == requestModel && typ == protowire.BytesType:
			r.Model, err = c.bytes(mostModel)
		case num == requestLayer && typ == protowire.VarintType:
			r.Layer, err = c.uint32()
		case num == requestRows && typ == protowire.VarintType:
			r.Rows, err = c.uint32()
		case num == requestWords && typ == protowire.BytesType:
			r.Seed, r.Shared = nil, nil // the last field of a oneof counts
			err = c.words(&r.Words)
		case num == requestSeed && typ == protowire.BytesType:
			dropWords(&r.Words)
			r.Shared = nil
			if r.Seed == nil {
				r.Seed = new(pb.Seed)
			}
			err = c.seed(r.Seed)
		case num == requestTimeout && typ == protowire.VarintType:
			r.TimeoutNS, err = c.varint()
		case num == requestPriority && typ == protowire.VarintType:
			r.Priority, err = c.uint32()
		case num == requestShared && typ == protowire.BytesType:
			dropWords(&r.Words)
			r.Seed = nil
			err = c.span(&r.Shared)
		case num == requestAnswer && typ == protowire.BytesType:
			err = c.span(&r.Answer)
		default:
			return false, nil
		}
		return true, err
	})
	if err != nil {
		r.Words.Free()
		*r = Request{}
	}
	return err
}

func (r *Response) unmarshal(b mem.BufferSlice) error {
	*r = Response{}
	err := eachField(b, func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error) {
		switch {
		case num == responseID && typ == protowire.VarintType:
			r.ID, err = c.varint()
		case num == responseWords && typ == protowire.BytesType:
			r.Err, r.Shared = nil, nil
			err = c.words(&r.Words)
		case num == responseError && typ == protowire.BytesType:
			dropWords(&r.Words)
			r.Shared = nil
			if r.Err == nil {
				r.Err = new(pb.Error)
			}
			err = c.message(r.Err)
		case num == responseQueue && typ == protowire.VarintType:
			r.QueueNS, err = c.varint()
		case num == responseCompute && typ == protowire.VarintType:
			r.ComputeNS, err = c.varint()
		case num == responseShared && typ == protowire.BytesType:
			dropWords(&r.Words)
			r.Err = nil
			err = c.span(&r.Shared)
		default:
			return false, nil
		}
		return true, err
	})
	if err != nil {
		r.Words.Free()
		*r = Response{}
	}
	return err
}

// several reports whether more than one argument is true.
func several(is ...bool) bool {
	n := 0
	for _, b := range is {
		if b {
			n++
		}
	}
	return n > 1
}

// wordsLast decodes a response of size bytes that begins with head and ends with its words, of
// which the first is at at. It returns false if it cannot tell, or the message has other fields.
func wordsLast(head []byte, size int) (r Response, at int, ok bool) {
	for rest := head; len(rest) > 0; {
		num, typ, k := protowire.ConsumeTag(rest)
		if k < 0 {
			return r, 0, false
		}
		v, n := protowire.ConsumeVarint(rest[k:])
		if n < 0 {
			return r, 0, false
		}
		rest = rest[k+n:]
		switch {
		case num == responseID && typ == protowire.VarintType:
			r.ID = v
		case num == responseQueue && typ == protowire.VarintType:
			r.QueueNS = v
		case num == responseCompute && typ == protowire.VarintType:
			r.ComputeNS = v
		case num == responseWords && typ == protowire.BytesType:
			at = len(head) - len(rest)
			return r, at, v == uint64(size-at)
		default:
			return r, 0, false
		}
	}
	return r, 0, false
}

func dropWords(words *mem.BufferSlice) {
	words.Free()
	*words = nil
}

// eachField calls field for every field of a message, with c at its value. It skips unknown
// fields, for which ok is false, as protobuf requires.
func eachField(b mem.BufferSlice, field func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error)) error {
	return (&cursor{bufs: b, left: b.Len()}).eachField(field)
}

// eachField does the same for the rest of c.
func (c *cursor) eachField(field func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error)) error {
	for c.left > 0 {
		num, typ, err := c.tag()
		if err != nil {
			return err
		}
		if num > protowire.MaxValidNumber {
			return fmt.Errorf("%w: field number %d", ErrMessage, num)
		}
		ok, err := field(c, num, typ)
		if err == nil && !ok {
			err = c.skip(num, typ, protowire.DefaultRecursionLimit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errTruncated = fmt.Errorf("%w: truncated", ErrMessage)

// cursor reads a message that lies in several buffers.
type cursor struct {
	bufs mem.BufferSlice
	off  int // bytes of bufs[0] that are read
	left int // bytes not yet read, of all buffers
}

// next returns the unread part of the first buffer that has one; left must not be 0.
func (c *cursor) next() []byte {
	for c.off == c.bufs[0].Len() {
		c.bufs, c.off = c.bufs[1:], 0
	}
	return c.bufs[0].ReadOnlyData()[c.off:]
}

// each calls f for the pieces of the next n bytes and advances past them.
func (c *cursor) each(n int, f func(b mem.Buffer, start, end int)) {
	for n > 0 {
		k := min(n, len(c.next()))
		f(c.bufs[0], c.off, c.off+k)
		c.off += k
		c.left -= k
		n -= k
	}
}

func (c *cursor) discard(n int) error {
	if n > c.left {
		return errTruncated
	}
	c.each(n, func(mem.Buffer, int, int) {})
	return nil
}

func (c *cursor) varint() (v uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		if c.left == 0 {
			return 0, errTruncated
		}
		b := c.next()[0]
		c.off++
		c.left--
		if shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%w: number of more than 64 bits", ErrMessage)
}

// uint32 drops the upper bits, as protobuf requires.
func (c *cursor) uint32() (uint32, error) {
	v, err := c.varint()
	return uint32(v), err
}

func (c *cursor) tag() (protowire.Number, protowire.Type, error) {
	v, err := c.varint()
	if err != nil {
		return 0, 0, err
	}
	num, typ := protowire.DecodeTag(v)
	if num < protowire.MinValidNumber {
		return 0, 0, fmt.Errorf("%w: bad field number", ErrMessage)
	}
	return num, typ, nil
}

// length reads the length of a field and checks that the whole field is there.
func (c *cursor) length() (int, error) {
	n, err := c.varint()
	if err == nil && n > uint64(c.left) {
		err = errTruncated
	}
	return int(n), err
}

// bytes returns a copy of a field's first bytes, most at most.
func (c *cursor) bytes(most int) ([]byte, error) {
	n, err := c.length()
	if err != nil {
		return nil, err
	}
	v := make([]byte, 0, min(n, most))
	c.each(cap(v), func(b mem.Buffer, start, end int) { v = append(v, b.ReadOnlyData()[start:end]...) })
	return v, c.discard(n - cap(v))
}

// message merges a field into m, as protobuf does if the field occurs several times.
func (c *cursor) message(m proto.Message) error {
	v, err := c.bytes(MaxMessage)
	if err != nil {
		return err
	}
	if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(v, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

// inner calls field, as eachField does, for every field of a message that is a field itself.
func (c *cursor) inner(field func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error)) error {
	n, err := c.length()
	if err != nil {
		return err
	}
	after := c.left - n
	c.left = n
	err = c.eachField(field)
	c.left += after
	return err
}

// span merges a field into *s, as message does.
func (c *cursor) span(s **Span) error {
	if *s == nil {
		*s = new(Span)
	}
	return c.inner(func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error) {
		switch {
		case num == spanOffset && typ == protowire.VarintType:
			(*s).Offset, err = c.varint()
		case num == spanLength && typ == protowire.VarintType:
			(*s).Length, err = c.varint()
		default:
			return false, nil
		}
		return true, err
	})
}

// seed merges a field into s in the same way.
func (c *cursor) seed(s *pb.Seed) error {
	return c.inner(func(c *cursor, num protowire.Number, typ protowire.Type) (ok bool, err error) {
		switch {
		case num == seedKey && typ == protowire.BytesType:
			s.Key, err = c.bytes(mostKey)
		case num == seedFirst && typ == protowire.VarintType:
			s.First, err = c.varint()
		default:
			return false, nil
		}
		return true, err
	})
}

// words replaces *words with views of the field's buffers.
func (c *cursor) words(words *mem.BufferSlice) error {
	dropWords(words)
	n, err := c.length()
	if err != nil {
		return err
	}
	v := mem.BufferSlice{}
	c.each(n, func(b mem.Buffer, start, end int) { v = append(v, b.Slice(start, end)) })
	*words = v
	return nil
}

// skip advances past the value of a field.
func (c *cursor) skip(num protowire.Number, typ protowire.Type, depth int) error {
	switch typ {
	case protowire.VarintType:
		_, err := c.varint()
		return err
	case protowire.Fixed32Type:
		return c.discard(4)
	case protowire.Fixed64Type:
		return c.discard(8)
	case protowire.BytesType:
		n, err := c.length()
		if err != nil {
			return err
		}
		return c.discard(n)
	case protowire.StartGroupType:
		if depth == 0 {
			return fmt.Errorf("%w: nested too deep", ErrMessage)
		}
		for {
			inner, typ, err := c.tag()
			if err != nil {
				return err
			}
			if typ == protowire.EndGroupType && inner == num {
				return nil
			}
			if err := c.skip(inner, typ, depth-1); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: wire type %d", ErrMessage, typ)
}
