package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/models"
)

// networks runs whole networks: by "securenets demo", privately and in float32
// through gorgonia, and by onnxruntime in float32.
type networks struct {
	securenets, python, script string
	rounds, samples            int
}

const batch = 256

// schemes are those that are run, and the number of clouds that each takes; places are
// which layers are sent.
var (
	schemes = []struct {
		name   string
		clouds int
	}{{"permute", 1}, {"permute+pad", 1}, {"permute+split", 2}}
	places = []string{"all", "auto"}
)

func (n networks) run(r *Result) error {
	if n.securenets == "" {
		return nil
	}
	dir, err := os.MkdirTemp("", "securenets-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	images, labels, err := models.TestSet()
	if err != nil {
		return err
	}
	for _, name := range models.Names() {
		log.Printf("%s, %d rounds", name, n.rounds)
		model, err := models.ONNX(name)
		if err != nil {
			return err
		}
		g, err := onnx.Parse(model)
		if err != nil {
			return err
		}
		fit, err := images.Fit(g.Input.C, g.Input.H, g.Input.W)
		if err != nil {
			return err
		}
		for file, b := range map[string][]byte{"model.onnx": model, "images.npy": npy(fit, n.samples)} {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				return err
			}
		}
		var rows []Network
		times := map[string]series{}
		add := func(runner string, ns int64, accuracy float64) {
			if times[runner] == nil {
				rows = append(rows, Network{Network: name, Runner: runner, Accuracy: accuracy})
			}
			times[runner] = append(times[runner], float64(ns)/1e3)
		}
		for range n.rounds {
			if err := n.round(r, name, dir, labels, add); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		for i := range rows {
			t := times[rows[i].Runner]
			rows[i].CPU, rows[i].Quartiles = t.median(), t.spread()
		}
		r.Networks = append(r.Networks, rows...)
	}
	return nil
}

// round runs one network once by each.
func (n networks) round(r *Result, name, dir string, labels []uint8, add func(runner string, ns int64, accuracy float64)) error {
	if n.python != "" {
		var got struct {
			Version string `json:"version"`
			CPU     int64  `json:"cpu_ns"`
			Classes []int  `json:"classes"`
		}
		cmd := exec.Command(n.python, n.script, filepath.Join(dir, "model.onnx"), filepath.Join(dir, "images.npy"), strconv.Itoa(batch))
		if err := output(cmd, &got); err != nil {
			return err
		}
		if len(got.Classes) != n.samples {
			return fmt.Errorf("onnxruntime classified %d images of %d", len(got.Classes), n.samples)
		}
		right := 0
		for i, c := range got.Classes {
			if c == int(labels[i]) {
				right++
			}
		}
		add("onnxruntime float32", got.CPU/int64(n.samples), float64(right)/float64(n.samples))
		if v := (Version{"onnxruntime", got.Version}); r.Peers[len(r.Peers)-1] != v {
			r.Peers = append(r.Peers, v)
		}
	}
	for _, s := range schemes {
		for _, place := range places {
			var got struct {
				Private float64 `json:"accuracy_private"`
				Float   float64 `json:"accuracy_float"`
				Online  int64   `json:"host_online_ns"`
				Offline int64   `json:"host_offline_ns"`
				Local   int64   `json:"local_ns"`
			}
			cmd := exec.Command(n.securenets, "demo", "--json", "--network", name, "--samples", strconv.Itoa(n.samples), "--batch", strconv.Itoa(batch),
				"--scheme", s.name, "--clouds", strconv.Itoa(s.clouds), "--place", place, "--out", dir)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
			if err := output(cmd, &got); err != nil {
				return err
			}
			add("gorgonia float32", got.Local, got.Float)
			add("securenets "+s.name+", "+place+", online", got.Online, got.Private)
			add("securenets "+s.name+", "+place+", in total", got.Online+got.Offline, got.Private)
		}
	}
	return nil
}

// output runs cmd and decodes the JSON that it prints.
func output(cmd *exec.Cmd, v any) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, stderr.Bytes())
	}
	return json.Unmarshal(b, v)
}

// npy returns the first n images as a file of NumPy's, version 1.0.
func npy(m *dataset.Images, n int) []byte {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d, %d, %d), }", n, m.C, m.H, m.W)
	const align, before = 64, 10
	for (before+len(header)+1)%align != 0 {
		header += " "
	}
	header += "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	b = append(b, header...)
	b, err := binary.Append(b, binary.LittleEndian, m.Range(0, n))
	if err != nil {
		panic(err) // floats have a fixed size
	}
	return b
}
