package padstock

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// header is the content of the file that makes a folder a stock. It binds the stock to its
// secret, machine, place and shape by digests, which reveal neither the machine's id nor the
// key. It holds the stock's own key, sealed under the secret's; all bytes before it are
// authenticated.
type header struct {
	Magic   [8]byte
	Stock   [16]byte // random id of the stock
	Secret  [16]byte // digest of the key that seals the stock's key
	Machine [32]byte
	Place   [32]byte
	Shape   [32]byte
	Key     [32 + sealing]byte
}

const (
	headerName    = "stock"
	headerMagic   = "snpads1\n"
	magicVersion  = 6 // offset of the version in the magic
	headerSize    = 8 + 2*16 + 3*32 + 32 + sealing
	headerBinding = headerSize - 32 - sealing // the bytes before Key
)

// sealing is the overhead of AES-256-GCM with a random nonce, in bytes: the nonce before the
// ciphertext and the tag after it.
const sealing = 12 + 16

// gcm returns AES-256-GCM with a random nonce of 96 bits per message. Under one key at most
// 2^32 are drawn, so that two are equal with probability below 2^-32.
func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// digest hashes a label and parts, each preceded by its length.
func digest(label string, parts ...[]byte) [32]byte {
	h := sha256.New()
	for _, p := range append([][]byte{[]byte("securenets pad stock: " + label)}, parts...) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}

func le64(v ...uint64) []byte {
	b := make([]byte, 0, 8*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// newHeader returns the header of a stock, without place and key.
func newHeader(stock [16]byte, c Config) header {
	h := header{Stock: stock, Machine: digest("machine", stock[:], []byte(c.MachineID))}
	copy(h.Magic[:], headerMagic)
	secret := digest("secret", c.Key[:])
	copy(h.Secret[:], secret[:])
	var words []uint64
	for _, w := range c.Words {
		words = append(words, uint64(w))
	}
	h.Shape = digest("shape", le64(words...))
	return h
}

// place returns the digest of a stock's place: its folders, and the inodes of its header and
// burn journal, which copies do not share.
func place(stock [16]byte, c Config, header, journal File) ([32]byte, error) {
	_, h, err := header.Stat()
	if err != nil {
		return [32]byte{}, err
	}
	_, j, err := journal.Stat()
	if err != nil {
		return [32]byte{}, err
	}
	return digest("place", stock[:], []byte(c.Dir), []byte(c.JournalDir), le64(h, j)), nil
}

func (h *header) encode() []byte {
	b, err := binary.Append(nil, binary.LittleEndian, h)
	if err != nil {
		panic(err) // a header has a fixed size
	}
	return b
}

// seal draws the stock's key, stores it sealed under the secret's, and returns its cipher.
func (h *header) seal(secret Key) (cipher.AEAD, error) {
	var key [32]byte
	rand.Read(key[:]) // never fails: the process would end
	outer, err := gcm(secret[:])
	if err != nil {
		return nil, err
	}
	copy(h.Key[:], outer.Seal(nil, nil, key[:], h.encode()[:headerBinding]))
	return gcm(key[:])
}

// readHeader reads a header and checks that secret, machine and shape are c's.
func readHeader(f File, c Config) (header, error) {
	var h header
	size, _, err := f.Stat()
	if err != nil {
		return h, err
	}
	b := make([]byte, min(size, headerSize+1))
	if _, err := f.ReadAt(b, 0); err != nil {
		return h, err
	}
	name := []byte(headerMagic[:magicVersion])
	if bytes.HasPrefix(b, name) && !bytes.HasPrefix(b, []byte(headerMagic)) {
		return h, ErrVersion
	}
	if len(b) != headerSize || !bytes.HasPrefix(b, name) {
		return h, fmt.Errorf("%w: header", ErrDamaged)
	}
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return h, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	switch own := newHeader(h.Stock, c); {
	case h.Secret != own.Secret:
		return h, ErrSecret
	case h.Machine != own.Machine:
		return h, ErrMachine
	case h.Shape != own.Shape:
		return h, fmt.Errorf("%w: header: other layers", ErrDamaged)
	}
	return h, nil
}

// unseal returns the cipher of the stock's key.
func (h *header) unseal(secret Key) (cipher.AEAD, error) {
	outer, err := gcm(secret[:])
	if err != nil {
		return nil, err
	}
	key, err := outer.Open(nil, nil, h.Key[:], h.encode()[:headerBinding])
	if err != nil {
		return nil, fmt.Errorf("%w: header", ErrDamaged)
	}
	return gcm(key)
}

// checkMachine checks that id has the form of /etc/machine-id.
func checkMachine(id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 || bytes.Equal(b, make([]byte, 16)) {
		return ErrMachineID
	}
	return nil
}
