package dataset

import (
	"fmt"
	"io"
)

// A record of CIFAR-10's binary version is one label, then 32 x 32 pixels of
// red, green and blue, each channel row by row (Krizhevsky, "Learning Multiple
// Layers of Features from Tiny Images", 2009, and the data set's page).
const (
	cifarClasses  = 10
	cifarChannels = 3
	cifarSide     = 32
	cifarPixels   = cifarChannels * cifarSide * cifarSide
)

// ReadCIFAR10 reads a file of CIFAR-10's binary version, such as
// data_batch_1.bin or test_batch.bin: images of 32 x 32 x 3 and their labels,
// each below 10. The format has no header: every record must be whole and begin
// with a label. CIFAR-100's records are a byte longer and are refused.
func ReadCIFAR10(r io.Reader) (*Images, []uint8, error) {
	m := &Images{C: cifarChannels, H: cifarSide, W: cifarSide}
	var labels []uint8
	var record [1 + cifarPixels]byte
	for {
		switch _, err := io.ReadFull(r, record[:]); {
		case err == io.EOF && m.N > 0:
			return m, labels, nil
		case err != nil:
			return nil, nil, malformed(err, "CIFAR-10 record %d", m.N)
		case record[0] >= cifarClasses:
			return nil, nil, fmt.Errorf("%w: CIFAR-10 record %d does not begin with a label", ErrFormat, m.N)
		case m.N == MaxElements/cifarPixels:
			return nil, nil, fmt.Errorf("%w: more than %d elements", ErrFormat, MaxElements)
		}
		var pixels [cifarPixels]float32
		scale(pixels[:], record[1:])
		m.Data = append(m.Data, pixels[:]...)
		labels = append(labels, record[0])
		m.N++
	}
}
