package hostclient

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"filippo.io/age"

	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/transform"
)

// ModelFile is an ONNX model in a file that weights are read from as they are needed, of one
// layer at a time. It may be used by several goroutines at once.
type ModelFile struct{ file *onnx.File }

// OpenModel opens a model's file, which must stay as it is until Close. It refuses what
// Seal refuses of a model, but for weights that are not finite, which shows as they are
// read.
func OpenModel(path string) (*ModelFile, error) { return OpenModelWith(path, ModelOptions{}) }

// ModelOptions say how a model is read.
type ModelOptions struct {
	// Sizes fix dimensions of inputs, other than the batch, for which the model has a name and no
	// size, such as a sequence length.
	Sizes map[string]int
	// Outputs names those of the model's outputs that are wanted; nil for all of floats. Layers
	// and inputs that only the others depend on are left out.
	Outputs []string
}

// OpenModelWith is OpenModel as options say.
func OpenModelWith(path string, o ModelOptions) (*ModelFile, error) {
	f, err := onnx.OpenWith(path, onnx.Options{Sizes: o.Sizes, Outputs: o.Outputs})
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	return &ModelFile{f}, nil
}

// Close closes the file. It must not run beside another method.
func (m *ModelFile) Close() error { return m.file.Close() }

// Input returns the sizes of a sample: C, H, W.
func (m *ModelFile) Input() [3]int {
	in := m.file.Graph.Input
	return [3]int{in.C, in.H, in.W}
}

// Inputs describes the inputs of which a sample has the elements one after the other, if it is not
// one of floats.
func (m *ModelFile) Inputs() []InputDescription { return describeInputs(m.file.Graph) }

// Preview is the function Preview.
func (m *ModelFile) Preview(s transform.Scheme, in Ring) (Description, error) {
	return preview(m.file.Graph, s, in)
}

// Place is Preview with the layers placed as PlaceAuto does, by what Seal would measure
// with the same options.
func (m *ModelFile) Place(ctx context.Context, o SealOptions) (Description, error) {
	o.Place = PlaceAuto
	s, err := newSealing(ctx, m.file.Graph, o)
	if err == nil {
		err = s.place(ctx)
	}
	if err != nil {
		return Description{}, fmt.Errorf("hostclient: place: %w", err)
	}
	return s.secret.Describe(), nil
}

// NewEmulator is the function NewEmulator. The emulator does not need the model.
func (m *ModelFile) NewEmulator(ctx context.Context, o SealOptions) (*Emulator, error) {
	return emulate(ctx, m.file.Graph, o)
}

// SealedFile is a sealed model in a file.
type SealedFile struct {
	Role   int
	Digest Digest
	Size   int64 // bytes

	path string
}

// SealDir is Seal and WriteDir at once. Of the weights it holds one layer's in memory, with
// PlaceAuto those of kept layers too: sealed models are written as they come. Another
// call for the folder waits until this one is done. What fails leaves no file, and no
// folder where there was none.
func (m *ModelFile) SealDir(ctx context.Context, dir string, o SealOptions, to ...age.Recipient) (*Secret, []SealedFile, error) {
	if len(to) == 0 {
		return nil, nil, fmt.Errorf("hostclient: seal: %w", errNoRecipients)
	}
	var (
		secret *Secret
		files  []SealedFile
	)
	err := fillDir(dir, to, func(create func(role, roles int) (io.Writer, error)) (_ *Secret, err error) {
		secret, err = sealTo(ctx, m.file.Graph, o, func(role, roles int, size int64) (io.Writer, error) {
			files = append(files, SealedFile{Role: role, Size: size, path: filepath.Join(dir, roleFile(role, roles))})
			return create(role, roles)
		})
		if err != nil {
			err = fmt.Errorf("hostclient: seal: %w", err)
		}
		return secret, err
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range files {
		files[i].Digest = secret.digests[i]
	}
	return secret, files, nil
}
