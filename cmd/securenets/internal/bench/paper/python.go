package paper

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// What runs in Python is told by these, a peer each: see their first lines.
var (
	//go:embed peers/onnxruntime.py
	onnxruntimeScript string
	//go:embed peers/tenseal.py
	tensealScript string
)

// python is a peer that runs in a Python interpreter, and answers a line with a line.
type python struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	stderr  bytes.Buffer
	started json.RawMessage // what it said at the start
}

// missingError says that a peer is not there, and how it can be had.
type missingError struct{ peer, why string }

func (e *missingError) Error() string {
	return fmt.Sprintf("%s is not measured: %s; bench/peers/venv.sh installs it, and --python names another interpreter that has it", e.peer, e.why)
}

// FindPython returns the interpreter that bench/peers/venv.sh makes, of the repository
// that this program was built in or that is the working directory; "" where there is none.
func FindPython() string {
	var roots []string
	if self, err := os.Executable(); err == nil {
		roots = append(roots, filepath.Dir(filepath.Dir(self))) // of bin/securenets
	}
	for _, root := range append(roots, ".") {
		path := filepath.Join(root, ".cache", "peers-venv", "bin", "python")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// startPython starts a peer with an interpreter, until ctx ends. The error is a
// *missingError where there is no interpreter, or it lacks a module.
func startPython(ctx context.Context, interpreter, peer, script string, args ...string) (*python, error) {
	if interpreter == "" {
		return nil, &missingError{peer, "there is no Python environment for it"}
	}
	p := &python{cmd: exec.CommandContext(ctx, interpreter, append([]string{"-c", script}, args...)...)}
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err, err2, p.cmd.Start()); err != nil {
		return nil, fmt.Errorf("bench: %s: %w", peer, err)
	}
	p.in, p.out = in, json.NewDecoder(out)
	var first struct{ Missing string }
	if err := p.next(&p.started); err != nil {
		return nil, errors.Join(fmt.Errorf("bench: %s: %w", peer, err), p.close())
	}
	if err := json.Unmarshal(p.started, &first); err != nil || first.Missing != "" {
		if err == nil {
			err = &missingError{peer, fmt.Sprintf("%s has no module %s", interpreter, first.Missing)}
		}
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// next decodes the next line that the peer prints.
func (p *python) next(answer any) error {
	err := p.out.Decode(answer)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the interpreter ended")
	}
	return err
}

// ask sends a line and decodes the one that answers it.
func (p *python) ask(question, answer any) error {
	b, err := json.Marshal(question)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		return err
	}
	return p.next(answer)
}

// close ends the peer. Its error has what it printed as it failed.
func (p *python) close() error {
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("bench: %s: %w\n%s", filepath.Base(p.cmd.Path), err, p.stderr.Bytes())
	}
	return nil
}
