// Command peers measures SecureNets' products and networks beside those of others, in one
// process and the same rounds. It is a module of its own, so that the product contains
// neither their code nor cgo. See README.md.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/securenets/securenets/kernels/roofline"
)

// Result is what peers.json has.
type Result struct {
	CPU string `json:"cpu"`
	// Roofline is the most that one thread does here, by measure in the same
	// rounds, in 10^9 a second. It is left out where it is not measured.
	Roofline struct {
		VNNI float64 `json:"vpdpbusd,omitzero"` // multiply-adds of bytes
		FP64 float64 `json:"fp64,omitzero"`     // multiply-adds of float64
		DRAM float64 `json:"dram_gbs,omitzero"` // bytes read
	} `json:"roofline"`
	Peers    []Version `json:"peers"`
	LeftOut  []string  `json:"left_out"` // that were not there
	Rows     []Row     `json:"rows"`
	Networks []Network `json:"networks"`
}

// Version says what was measured.
type Version struct {
	Peer    string `json:"peer"`
	Version string `json:"version"`
}

// Row is one product of m x k weights with n columns by one peer.
type Row struct {
	Peer    string `json:"peer"`
	Shape   string `json:"shape"`
	M       int    `json:"m"`
	K       int    `json:"k"`
	N       int    `json:"n"`
	Threads int    `json:"threads"`
	// GMACs are 10^9 multiply-adds of the peer's own kind a second.
	GMACs     float64    `json:"gmacs"`
	Quartiles [2]float64 `json:"quartiles"`
	// Q4 is how many times as many securenets-q4 does, the median over rounds.
	Q4 float64 `json:"q4_times"`
	// Limit is the part of a quarter of vpdpbusd that is reached, of ours only.
	Limit float64 `json:"quarter_vpdpbusd,omitzero"`
}

// Network is one network on one machine's core, by one way to run it.
type Network struct {
	Network string  `json:"network"`
	Runner  string  `json:"runner"`
	CPU     float64 `json:"cpu_us_per_image"` // processor time of the host's process
	// Quartiles are those of CPU.
	Quartiles [2]float64 `json:"quartiles"`
	Accuracy  float64    `json:"accuracy"` // a fraction
}

// known are all peers, in the order of rows, and what a missing one takes.
var known = []struct{ peer, needs string }{
	{"securenets-q4", ""},
	{"securenets-small", ""},
	{"openblas-dgemm", "libopenblas-dev"},
	{"openblas-sgemm", "libopenblas-dev"},
	{"gonum-dgemm", ""},
	{"fflas-ffpack-double23", "fflas-ffpack"},
	{"fflas-ffpack-int31", "fflas-ffpack"},
	{"onednn-int8", "libdnnl-dev"},
	{"onnxruntime", "a Python with requirements.txt"},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("peers: ")
	out := flag.String("o", "peers.json", "write the figures to `file`")
	rounds := flag.Int("rounds", 7, "rounds of each product")
	only := flag.String("shape", "", "measure products of shapes whose name contains `text` only")
	n := networks{}
	flag.StringVar(&n.securenets, "securenets", "", "path of `securenets`, beside securenetsd; without it no networks are run")
	flag.StringVar(&n.python, "python", "", "path of a `python` that has onnxruntime; without it that is left out")
	flag.StringVar(&n.script, "script", "networks.py", "path of networks.py")
	flag.IntVar(&n.rounds, "network-rounds", 5, "rounds of each network")
	flag.IntVar(&n.samples, "samples", 1000, "test images a network classifies")
	flag.Parse()
	for _, name := range []string{"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} {
		if os.Getenv(name) != "" {
			log.Fatalf("%s is set, which slows OpenBLAS down: unset it", name)
		}
	}
	for _, name := range []string{"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} {
		if os.Getenv(name) != "1" {
			log.Fatalf("%s is not 1: peers would be measured on several threads", name)
		}
	}
	if err := run(*out, *rounds, *only, n); err != nil {
		log.Fatal(err)
	}
}

func run(out string, rounds int, only string, n networks) error {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1) // collected by hand, between shapes
	r := &Result{CPU: processor(), LeftOut: []string{}, Networks: []Network{}}
	if err := products(r, rounds, only); err != nil {
		return err
	}
	debug.SetGCPercent(100)
	if err := n.run(r); err != nil {
		return err
	}
	for _, k := range known {
		if !slices.ContainsFunc(r.Peers, func(v Version) bool { return v.Peer == k.peer }) {
			r.LeftOut = append(r.LeftOut, k.peer)
		}
	}
	r.table(os.Stdout)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, append(b, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nAll figures: %s.\n", out)
	return nil
}

// table writes the figures for people.
func (r *Result) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\n\n", r.CPU)
	for _, v := range r.Peers {
		fmt.Fprintf(t, "%s\t%s\n", v.Peer, v.Version)
	}
	for _, k := range known {
		if slices.Contains(r.LeftOut, k.peer) {
			fmt.Fprintf(t, "%s\tLEFT OUT: needs %s\n", k.peer, k.needs)
		}
	}
	if roofline.Available() {
		fmt.Fprintln(t)
		if roofline.HasVNNI() {
			fmt.Fprintf(t, "vpdpbusd\t%.1f\tG multiply-adds of bytes a second\n", r.Roofline.VNNI)
		}
		fmt.Fprintf(t, "fp64 FMA\t%.1f\tG multiply-adds a second\n", r.Roofline.FP64)
		fmt.Fprintf(t, "memory, read\t%.1f\tGB a second\n", r.Roofline.DRAM)
	}
	fmt.Fprint(t, "\nshape\tm\tk\tn\tpeer\tGMAC/s\tquartiles\tq4 does\tof vpdpbusd/4\n")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%.2f\t%.2f-%.2f\t%.2f times\t", row.Shape, row.M, row.K, row.N, row.Peer, row.GMACs, row.Quartiles[0], row.Quartiles[1], row.Q4)
		if row.Limit > 0 {
			fmt.Fprintf(t, "%.2f", row.Limit)
		}
		fmt.Fprintln(t)
	}
	if len(r.Networks) > 0 {
		fmt.Fprint(t, "\nnetwork\trunner\tCPU us an image\tquartiles\taccuracy\n")
		for _, n := range r.Networks {
			fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f-%.1f\t%.2f %%\n", n.Network, n.Runner, n.CPU, n.Quartiles[0], n.Quartiles[1], 100*n.Accuracy)
		}
	}
	t.Flush()
	fmt.Fprint(w, `
One thread, in processor time of the whole process; medians over rounds. A
multiply-add is of each peer's own kind: words modulo M of 32 bits (securenets),
float64, float32, integers modulo a prime of 23 or 31 bits, and plain bytes for
onednn, of which a multiply-add modulo M takes four. Convolutions are products of
their size for all but securenets: that others must lay patches out first is not counted.
`)
}

// processor returns the name of this machine's processor, with its family and
// model, as far as they are known.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	values := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; {
		key, value, _ := strings.Cut(lines.Text(), ":")
		values[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return fmt.Sprintf("%s (family %s, model %s)", values["model name"], values["cpu family"], values["model"])
}
