package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/securenets/securenets/cmd/internal/manual/manualtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/throughput"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

func TestMain(m *testing.M) {
	testscript.Main(withDaemon{m}, map[string]func(){"securenets": func() {
		benchBudget = 100 * time.Millisecond
		main()
	}})
}

// withDaemon builds the daemon for the tests that it runs.
type withDaemon struct{ *testing.M }

// securenetsd is the path of the daemon.
var securenetsd string

func (w withDaemon) Run() int {
	dir, err := os.MkdirTemp("", "securenetsd-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	securenetsd = filepath.Join(dir, "securenetsd")
	if out, err := exec.Command("go", "build", "-o", securenetsd, "../securenetsd").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build of securenetsd: %v\n%s", err, out)
		return 1
	}
	return w.M.Run()
}

// TestScripts runs testdata/*.txtar. Beside what Setup makes, they have commands:
//
//	exits STATUS COMMAND...   run it, which must exit with that status
//	daemon NAME [tls]         serve at unix:NAME.sock, until the script ends; with tls also at $TLS
//	liar NAME UPSTREAM LIE    serve the daemon at unix:UPSTREAM.sock as unix:NAME.sock, lying
//	empty DIR                 it must hold nothing
//	ask SOCKET PATH [BODY]    status and body of what HTTP answers there, to the file answer
//	agree                     the scores in answer are those of stdout, as infer writes them
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               setup,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "daemon": startDaemon, "liar": startLiar, "empty": empty, "ask": ask, "agree": agree,
		},
	})
}

// setup writes what scripts start from: mnist-cnn, test images in files of each
// kind, identities, and files that are none of these.
func setup(env *testscript.Env) error {
	env.Setenv("SECURENETSD", securenetsd)
	model, err := models.ONNX("mnist-cnn")
	if err != nil {
		return err
	}
	images, labels, err := models.TestSet()
	if err != nil {
		return err
	}
	pixels := make([]byte, 10*28*28) // of ten images
	for i, v := range images.Range(0, 10) {
		pixels[i] = byte(v*255 + 0.5)
	}
	picture := image.NewGray(image.Rect(0, 0, 28, 28))
	for i, v := range pixels[:28*28] {
		picture.SetGray(i%28, i/28, color.Gray{Y: v})
	}
	var asPNG bytes.Buffer
	if err := png.Encode(&asPNG, picture); err != nil {
		return err
	}
	// The same network with two operators that do not exist.
	unknown := bytes.Replace(bytes.ReplaceAll(model, []byte("MaxPool"), []byte("MaxPoll")), []byte("Softmax"), []byte("Softmix"), 1)
	idx := []byte{0, 0, 8, 3}
	for _, n := range []uint32{10, 28, 28} {
		idx = binary.BigEndian.AppendUint32(idx, n)
	}
	// A layer that scheme permute unrolls to 25 times its input, and that has next to
	// nothing to multiply: no host sends it.
	window := plan.Conv2D{H: 28, W: 28, C: 1, OutC: 1, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Top: 2, Left: 2, Bot: 2, Right: 2, Groups: 1}
	light, err := onnx.Marshal(&graph.Graph{
		Input:  graph.Shape{H: 28, W: 28, C: 1},
		Nodes:  []graph.Node{{Op: &graph.Conv2D{Geometry: window, W: slices.Repeat([]float32{0.5}, 25)}, Inputs: []graph.Value{0}}},
		Output: 1,
	})
	if err != nil {
		return err
	}
	text, tokens, err := textFiles()
	if err != nil {
		return err
	}
	heads, both, err := headsModels()
	if err != nil {
		return err
	}
	scaling, err := scalingModel(model)
	if err != nil {
		return err
	}
	bert, texts, err := bertFiles()
	if err != nil {
		return err
	}
	if err := certificates(env.WorkDir); err != nil {
		return err
	}
	request, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{
		"name": "input", "datatype": "FP32", "shape": []int{1, 1, 28, 28}, "data": images.Range(0, 1),
	}}})
	if err != nil {
		return err
	}
	asBytes, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{
		"name": "image", "datatype": "UINT8", "shape": []int{1, 1, 28, 28}, "data": asIntegers(pixels[:28*28]),
	}}})
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"one.json":       request,
		"light.onnx":     light,
		"text.onnx":      text,
		"heads.onnx":     heads,
		"both.onnx":      both,
		"one.labels":     append(npy("|u1", "(1,)"), 1),
		"two.labels":     append(npy("|u1", "(1, 2)"), 0, 1),
		"ones.npy":       append(npy("<f4", "(1, 784)"), bytes.Repeat([]byte{0, 0, 0x80, 0x3f}, 784)...),
		"text.npz":       tokens,
		"bytes.onnx":     scaling,
		"bytes.json":     asBytes,
		"bert.onnx":      bert,
		"bert.npz":       texts,
		"ids.npy":        append(npy("<i4", "(1, 2)"), 1, 0, 0, 0, 2, 0, 0, 0),
		"mnist-cnn.onnx": model,
		"truncated.onnx": model[:len(model)/2],
		"unknown.onnx":   unknown,
		"ten.idx":        append(idx, pixels...),
		"ten.labels":     append([]byte{0, 0, 8, 1, 0, 0, 0, 10}, labels[:10]...),
		"nine.labels":    append([]byte{0, 0, 8, 1, 0, 0, 0, 9}, labels[:9]...),
		"labels.npy":     append(npy("|u1", "(10,)"), labels[:10]...),
		"from-1.npy":     append(append(npy("|u1", "(10,)"), labels[:9]...), 10),
		"ignore.npy":     append(append(npy("|u1", "(10,)"), labels[:8]...), 255, 255),
		"ignored.npy":    append(npy("|i1", "(10,)"), bytes.Repeat([]byte{0xff}, 10)...), // -1
		"few.npy":        append(npy("|i1", "(2,)"), 0, 1),
		"tokens.npy":     append(npy("|i1", "(2, 4)"), 0, 1, 2, 0x9c, 3, 4, 5, 6), // one of -100
		"ten.npy":        append(npy("|u1", "(10, 1, 28, 28)"), pixels...),
		"flat.npy":       append(npy("|u1", "(10, 784)"), pixels...),
		"wide.npy":       append(npy("|u1", "(5, 28, 56)"), pixels...),
		"nan.npy":        append(npy("<f4", "(1, 784)"), bytes.Repeat([]byte{0, 0, 0xc0, 0x7f}, 784)...),
		"large.npy":      append(npy("<f4", "(2, 784)"), append(make([]byte, 4*784), bytes.Repeat([]byte{0xff, 0xff, 0x7f, 0x7f}, 784)...)...),
		"one.png":        asPNG.Bytes(),
		"garbage":        []byte("neither a model nor an image, and no identity\n"),
	}
	for _, name := range []string{"id", "other"} {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		files[name] = fmt.Appendf(nil, "# public key: %s\n%s\n", id.Recipient(), id)
		env.Setenv(strings.ToUpper(name), id.Recipient().String())
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		return err
	}
	files["hybrid"] = []byte(hybrid.String())
	env.Setenv("HYBRID", hybrid.Recipient().String())
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// scalingModel returns a network of images in [0, 1] as one that takes bytes, and scales them.
func scalingModel(model []byte) ([]byte, error) {
	g, err := onnx.Parse(model)
	if err != nil {
		return nil, err
	}
	g.Parts = []graph.Part{{Name: "image", Shape: g.Input, Below: 256, Type: "uint8"}}
	nodes := []graph.Node{{Op: &graph.Affine{Scale: []float32{1. / 255}}, Inputs: []graph.Value{0}}}
	for _, n := range g.Nodes {
		for i := range n.Inputs {
			n.Inputs[i]++
		}
		nodes = append(nodes, n)
	}
	g.Nodes, g.Output = nodes, g.Output+1
	return onnx.Marshal(g)
}

// asIntegers returns bytes as numbers, which JSON has no bytes of.
func asIntegers(b []byte) (v []int) {
	for _, b := range b {
		v = append(v, int(b))
	}
	return v
}

// headsModels returns two networks with outputs of one vector of 784: the first element and the sum
// of the first two, then that sum; and the sum, then both, then both the other way round.
func headsModels() (heads, both []byte, err error) {
	pick := func(rows ...int) *graph.Dense { // of each row, so many of the first elements
		d := &graph.Dense{In: 784, Out: len(rows), W: make([]float32, 784*len(rows))}
		for i, n := range rows {
			for j := range n {
				d.W[784*i+j] = 1
			}
		}
		return d
	}
	model := func(results []graph.Result, heads ...*graph.Dense) ([]byte, error) {
		g := &graph.Graph{Input: graph.Vector(784), Results: results, Output: graph.Value(len(heads) + 1)}
		all := graph.Node{Op: graph.Outputs{}}
		for i, d := range heads {
			g.Nodes = append(g.Nodes, graph.Node{Op: d, Inputs: []graph.Value{0}})
			all.Inputs = append(all.Inputs, graph.Value(i+1))
		}
		g.Nodes = append(g.Nodes, all)
		return onnx.Marshal(g)
	}
	sums, sum := graph.Result{Name: "sums", Dims: []int{2, 1}}, graph.Result{Name: "sum", Dims: []int{1}}
	if heads, err = model([]graph.Result{sums, sum}, pick(1, 2), pick(2)); err != nil {
		return nil, nil, err
	}
	both, err = model([]graph.Result{sum, sums, {Name: "turned", Dims: []int{2}}}, pick(2), pick(1, 2), pick(2, 1))
	return heads, both, err
}

// textFiles returns a network of two ids and a mask, whose output is the first id's row and the
// second's times the mask, and three samples of it, the last of which has an id of no row.
func textFiles() (model, samples []byte, err error) {
	rows := func(from int) graph.Slice {
		return graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{From: from, To: from + 2}}
	}
	model, err = onnx.Marshal(&graph.Graph{
		Input: graph.Vector(4),
		Parts: []graph.Part{
			{Name: "input_ids", Shape: graph.Vector(2), Below: 3},
			{Name: "attention_mask", Shape: graph.Vector(2), From: -graph.MaxInteger, Below: graph.MaxInteger + 1, Type: "int32"},
		},
		Nodes: []graph.Node{
			{Op: rows(0), Inputs: []graph.Value{0}},
			{Op: rows(2), Inputs: []graph.Value{0}},
			{Op: &graph.Embedding{Rows: 3, Width: 1, Table: []float32{0.5, 1, -2}}, Inputs: []graph.Value{1}},
			{Op: graph.Reshape{To: graph.Vector(2)}, Inputs: []graph.Value{3}},
			{Op: graph.Mul{}, Inputs: []graph.Value{4, 2}},
			{Op: &graph.Dense{In: 2, Out: 2, W: []float32{1, 0, 0, 1}}, Inputs: []graph.Value{5}},
		},
		Output: 6,
	})
	if err != nil {
		return nil, nil, err
	}
	samples, err = npz("(3, 2)", map[string][]int64{"input_ids": {2, 0, 0, 1, 1, 3}, "attention_mask": {1, 1, 1, 0, 1, 1}})
	return model, samples, err
}

// bertFiles returns a network whose sequence length is symbolic, and two samples of length 4.
func bertFiles() (model, samples []byte, err error) {
	b, err := os.ReadFile("../../internal/onnx/testdata/text.json")
	if err != nil {
		return nil, nil, err
	}
	var cases []struct {
		Model []byte
		Sizes map[string]int
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		return nil, nil, err
	}
	for _, c := range cases {
		if c.Sizes["sequence"] == 4 {
			samples, err := npz("(2, 4)", map[string][]int64{
				"input_ids": {2, 3, 4, 5, 11, 10, 9, 8}, "attention_mask": {1, 1, 1, 1, 1, 1, 0, 0}, "token_type_ids": {0, 0, 1, 1, 0, 0, 0, 0},
			})
			return c.Model, samples, err
		}
	}
	return nil, nil, errors.New("no network of a symbolic sequence length")
}

// npz returns an .npz file of arrays.
func npz(shape string, arrays map[string][]int64) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, v := range arrays {
		w, err := z.Create(name + ".npy")
		if err == nil {
			_, err = w.Write(npy("<i8", shape))
		}
		if err == nil {
			err = binary.Write(w, binary.LittleEndian, v)
		}
		if err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return b.Bytes(), err
}

// npy returns the header of a NumPy file.
func npy(dtype, shape string) []byte {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", dtype, shape)
	header += strings.Repeat(" ", 63-(10+len(header))%64) + "\n"
	return append(binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header))), header...)
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want || neg {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	if got == 0 {
		return
	}
	if message := ts.ReadFile("stderr"); strings.Count(message, "\n") != 1 || !strings.HasPrefix(message, "securenets: ") {
		ts.Fatalf("not one line that begins with the program's name: %q", message)
	}
}

// certificates writes those of a CA, a daemon and two hosts.
func certificates(dir string) error {
	ca, err := tlstest.NewCA()
	if err != nil {
		return err
	}
	if _, err := ca.WriteCA(dir); err != nil {
		return err
	}
	for name, l := range map[string]tlstest.Leaf{
		"daemon": {Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, "alice": {CommonName: "alice"}, "bob": {CommonName: "bob"},
	} {
		if _, _, err := ca.Write(dir, name, l); err != nil {
			return err
		}
	}
	return nil
}

func startDaemon(ts *testscript.TestScript, _ bool, args []string) {
	dir, socket := ts.MkAbs(args[0]), ts.MkAbs(args[0]+".sock")
	ts.Check(os.MkdirAll(dir, 0o700))
	cmd := exec.Command(securenetsd, "serve", "--listen", "unix:"+socket, "--state-dir", filepath.Join(dir, "state"))
	if len(args) > 1 {
		config := fmt.Sprintf("[tls]\nlisten = \"tls:127.0.0.1:0\"\ncertificate = %q\nkey = %q\nclient_ca = %q\n",
			ts.MkAbs("daemon.pem"), ts.MkAbs("daemon.key"), ts.MkAbs("ca.pem"))
		ts.Check(os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600))
		cmd.Args = append(cmd.Args, "--config", filepath.Join(dir, "config.toml"))
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	ts.Check(err)
	defer log.Close()
	cmd.Stderr = log
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			ts.Logf("securenetsd: %v", err)
		}
	})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if serves("unix:" + socket) {
			if at := regexp.MustCompile(`msg=tls address=(\S+)`).FindStringSubmatch(ts.ReadFile(filepath.Join(dir, "log"))); at != nil {
				ts.Setenv("TLS", "tls:"+at[1])
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("the daemon does not serve:\n%s", ts.ReadFile(filepath.Join(dir, "log")))
}

func serves(addr string) bool {
	client, err := hostclient.Dial(addr)
	if err != nil {
		return false
	}
	defer client.Close()
	info, err := client.Info(context.Background())
	return err == nil && info.Serving
}

func startLiar(ts *testscript.TestScript, _ bool, args []string) {
	i := slices.IndexFunc(adversary.Lies(), func(l adversary.Lie) bool { return l.Name == args[2] })
	if i < 0 {
		ts.Fatalf("no lie %q", args[2])
	}
	p, err := adversary.Start("unix:"+ts.MkAbs(args[0]+".sock"), "unix:"+ts.MkAbs(args[1]+".sock"), plan.Plan{Ring: ring.Q4()})
	ts.Check(err)
	ts.Defer(func() { ts.Check(p.Close()) })
	p.Tell(adversary.Lies()[i], adversary.AnyLayer, adversary.Always)
}

func empty(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s holds %s", args[0], entries[0].Name())
	}
}

// ask waits until somebody serves the socket.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	method, body := "GET", ""
	if len(args) > 2 {
		method, body = "POST", ts.ReadFile(args[2])
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		for range 1000 {
			if c, err = new(net.Dialer).DialContext(ctx, "unix", ts.MkAbs(args[0])); err == nil {
				return c, nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil, err
	}}
	r, err := http.NewRequest(method, "http://localhost"+args[1], strings.NewReader(body))
	ts.Check(err)
	resp, err := transport.RoundTrip(r)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), fmt.Appendf(nil, "%d %s\n", resp.StatusCode, answer), 0o600))
}

func agree(ts *testscript.TestScript, _ bool, _ []string) {
	var answer struct{ Outputs []struct{ Data []float32 } }
	var written struct{ Scores []float32 }
	_, text, _ := strings.Cut(ts.ReadFile("answer"), " ")
	ts.Check(json.Unmarshal([]byte(text), &answer))
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &written))
	if len(answer.Outputs) != 1 || len(written.Scores) == 0 || !slices.Equal(answer.Outputs[0].Data, written.Scores) {
		ts.Fatalf("%v, want %v", answer, written)
	}
}

func TestPages(t *testing.T) { manualtest.Check(t, newRoot(), 15) }

func TestSummary(t *testing.T) {
	for want, s := range map[string]hostclient.Stats{
		"samples: 1, products checked: 3, rejected: 0":                       {Samples: 1, Checked: 3},
		"samples: 1,000, products checked: 1, rejected: 1, computed here: 2": {Samples: 1000, Checked: 1, Rejected: 1, Kept: 2},
	} {
		if got := summary(s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestDefaultEndpoint: clients look where a daemon serves by default.
func TestDefaultEndpoint(t *testing.T) {
	if got := config.Default().Listen; got != defaultEndpoint {
		t.Errorf("securenetsd serves at %s, want %s", got, defaultEndpoint)
	}
}

// TestPicture: a PNG has the channels that a network takes, also one that takes a vector.
func TestPicture(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 3, 2))
	for i := range 6 {
		m.Set(i%3, i/3, color.RGBA{R: 0, G: 51, B: 255, A: 255})
	}
	path := filepath.Join(t.TempDir(), "picture.png")
	var b bytes.Buffer
	if err := errors.Join(png.Encode(&b, m), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	for input, channels := range map[[3]int]int{
		{1, 2, 3}: 1, {3, 2, 3}: 3, {6, 1, 1}: 1, {18, 1, 1}: 3, {1, 3, 2}: 0, {3, 3, 2}: 0, {7, 1, 1}: 0, {3, 1, 1}: 0,
	} {
		images, err := readSamples(path, taken{input: input})
		if (err == nil) != (channels > 0) {
			t.Errorf("%v: %v", input, err)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "x2x3 (channels, rows, columns), the network takes") {
				t.Errorf("%v: %v", input, err)
			}
			continue
		}
		if images.C != channels || images.N != 1 || channels == 3 && (images.Data[6] != 0.2 || images.Data[12] != 1) {
			t.Errorf("%v: %+v", input, images)
		}
	}
}

// TestReadSequence: a sequence, of channels without rows, is read of arrays of three dimensions.
func TestReadSequence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.npy")
	b, err := binary.Append(npy("<f4", "(2, 2, 3)"), binary.LittleEndian, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if m, err := readSamples(file, taken{input: [3]int{2, 1, 3}}); err != nil || !slices.Equal(m.Range(1, 2), []float32{6, 7, 8, 9, 10, 11}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, input := range [][3]int{{3, 1, 2}, {1, 3, 2}, {2, 3, 1}} {
		if m, err := readSamples(file, taken{input: input}); err == nil {
			t.Errorf("%d: %+v", input, m)
		}
	}
}

// TestFits: pads may take the machine's memory in all, and no more.
func TestFits(t *testing.T) {
	dir, cmd := "", newGateway("")
	f := stockFlags{dir: &dir}
	for _, test := range []struct {
		have, n, each int64
		fits          bool
	}{{9, 9, 1, true}, {9, 10, 1, false}, {9, 4, 2, true}, {9, 5, 2, false}, {9, math.MaxInt64, math.MaxInt64, false}, {9, 100, 0, true}, {0, 100, 1, true}} {
		if err := f.fits(cmd, test.have, "pad-memory", test.n, test.each); (err == nil) != test.fits || err != nil && exitStatus(err) != exitUsage {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if dir = "disk"; f.fits(cmd, 9, "pad-memory", 10, 1) != nil {
		t.Error("a stock on disk is refused")
	}
}

// TestScores: the largest output is of all, of a sequence's positions, or of a map's channels.
func TestScores(t *testing.T) {
	y := []float32{0, 5, 2, 3, 1, 4, 9, 7, 8, 6, -1, -2} // 2 x 2 x 3
	for _, test := range []struct {
		out  [3]int
		want []int
	}{
		{[3]int{12, 1, 1}, []int{6}},
		{[3]int{1, 1, 12}, []int{6}},
		{[3]int{1, 12, 1}, []int{6}},
		{[3]int{3, 1, 4}, []int{1, 2, 0}},
		{[3]int{4, 1, 3}, []int{1, 2, 0, 0}},
		{[3]int{2, 2, 3}, []int{1, 1, 1, 1, 0, 0}},
		{[3]int{3, 4, 1}, []int{2, 2, 1, 1}},
		{[3]int{1, 3, 4}, slices.Repeat([]int{0}, 12)},
	} {
		s := scoresOf(test.out)
		var got []int
		for i := range s.positions {
			got = append(got, s.largest(y, i))
		}
		if s.positions*s.classes != len(y) || !slices.Equal(got, test.want) {
			t.Errorf("%v: %+v, %v, want %v", test.out, s, got, test.want)
		}
	}
}

// TestSizes: dimensions between the first and the last are one axis.
func TestSizes(t *testing.T) {
	for _, test := range []struct {
		dims []int
		want [3]int
	}{
		{nil, [3]int{1, 1, 1}}, {[]int{7}, [3]int{7, 1, 1}}, {[]int{5, 3}, [3]int{5, 1, 3}}, {[]int{2, 4, 3}, [3]int{2, 4, 3}}, {[]int{2, 4, 5, 3}, [3]int{2, 20, 3}},
	} {
		if got := sizes(test.dims); got != test.want {
			t.Errorf("%v: %v, want %v", test.dims, got, test.want)
		}
	}
}

// TestTally: two samples of two positions, by hand.
func TestTally(t *testing.T) {
	c := tally{scores: scoresOf([3]int{2, 1, 2}), labels: []float32{0, 1, 1, -100}}
	c.add([]float32{3, 1, 1, 0}, []float32{3, 2, -1, 1})
	c.add([]float32{0, 1, 2, 0}, []float32{0, 4, 2, 0})
	got := *c.comparison()
	fractions := []float64{*got.Agreement, *got.AccuracyFloat, *got.AccuracyPrivate}
	if got.Samples != 2 || got.Positions != 2 || got.Classes != 2 || got.LabelsLeftOut != 1 || !slices.Equal(fractions, []float64{3. / 4, 1, 2. / 3}) ||
		*got.Error != 3./4 || *got.MeanError != 7./13 {
		t.Errorf("%+v, %v", got, fractions)
	}
}

// TestTallyOfZeros: where float32 gives zeros only, what is not 0 is no fraction of that, and is not
// left out. A single output has no class.
func TestTallyOfZeros(t *testing.T) {
	for _, test := range []struct {
		private      []float32
		json, prints string
	}{
		{[]float32{0, 0}, `{"samples":2,"positions":1,"error":0,"mean_error":0}`,
			"samples             2\nlargest difference  0 of the largest output\nmean difference     0 of the mean output, by magnitude\n"},
		{[]float32{0.5, -1}, `{"samples":2,"positions":1,"difference":1,"mean_difference":0.75}`,
			"samples             2\nlargest difference  1, where every output in float32 is 0\nmean difference     0.75, by magnitude\n"},
	} {
		c := tally{scores: scoresOf([3]int{1, 1, 1})}
		for _, y := range test.private {
			c.add([]float32{y}, []float32{0})
		}
		got, err := json.Marshal(c.comparison())
		if err != nil || string(got) != test.json {
			t.Errorf("%v: %s, %v, want %s", test.private, got, err, test.json)
		}
		var b strings.Builder
		c.comparison().print(&b, "output")
		if b.String() != test.prints {
			t.Errorf("%v:\n%swant\n%s", test.private, &b, test.prints)
		}
	}
}

// TestIgnoredLabels: 255 is a class where there are so many, and stands for none where there are not.
func TestIgnoredLabels(t *testing.T) {
	for _, test := range []struct {
		classes int
		label   float32
		want    bool
	}{
		{10, 0, false}, {10, 10, false}, {10, -1, true}, {10, -100, true}, {10, 255, true}, {255, 255, true}, {256, 255, false}, {300, 255, false}, {300, -1, true}, {10, 256, false},
	} {
		if got := (scores{classes: test.classes}).ignores(test.label); got != test.want {
			t.Errorf("%v of %d classes: %v", test.label, test.classes, got)
		}
	}
}

// TestDemo: the figures are those of its file, which has all of them and no more.
func TestDemo(t *testing.T) {
	for _, scheme := range transform.Schemes() {
		dir := t.TempDir()
		const n = 40 // with a short last batch
		got, err := demo.Run(t.Context(), demo.Options{
			Network: "mnist-cnn", Scheme: scheme, Samples: n, Batch: 16, OutDir: dir, Daemon: securenetsd,
			Out: io.Discard, Log: t.Output(), Progress: func(string, int, int) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "demo.json"))
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]float64
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		var again demo.Result
		if err := json.Unmarshal(text, &again); err != nil || again != *got {
			t.Errorf("%v: file has %+v, want %+v: %v", scheme, again, *got, err)
		}
		within := map[string][2]float64{
			"samples": {n, n}, "accuracy_float": {0.7, 1}, "accuracy_private": {0.7, 1}, "agreement": {0.97, 1},
			"layers_sent": {3, 3}, "layers_kept": {0, 0}, "checked": {3 * n, 3 * n}, "rejected": {0, 0}, "host_online_ns": {1e3, 1e9}, "host_offline_ns": {0, 1e9}, "local_ns": {1e3, 1e9},
			// Words of 4 bytes: 28·28 + 12·12·16 + 4·4·32 up, 24·24·16 + 8·8·32 + 10 down.
			"bytes_up": {14400, 14400}, "bytes_down": {45096, 45096}, "images_per_s": {1, 1e6},
			"tamper_tried": {17, 17}, "tamper_caught": {17, 17},
		}
		if scheme.Inputs != transform.InputPad {
			within["host_offline_ns"] = [2]float64{0, 0}
		}
		if scheme.Inputs == transform.InputSplit {
			// Also a seed of 32 bytes a layer for each of three batches, answers
			// twice, and another role's answers to lie with.
			within["bytes_up"] = [2]float64{14400 + 3*3*32/n, 14400 + 3*3*32/n}
			within["bytes_down"] = [2]float64{2 * 45096, 2 * 45096}
			within["tamper_tried"], within["tamper_caught"] = [2]float64{18, 18}, [2]float64{18, 18}
		}
		if scheme.Inputs == transform.InputLagrange {
			// As split, but words to two and answers from three.
			within["bytes_up"] = [2]float64{2*14400 + 3*3*32/n, 2*14400 + 3*3*32/n}
			within["bytes_down"] = [2]float64{3 * 45096, 3 * 45096}
			within["tamper_tried"], within["tamper_caught"] = [2]float64{18, 18}, [2]float64{18, 18}
		}
		if scheme.Inputs == transform.InputPermute {
			// The host unrolls: 24·24 patches of 25, 8·8 of 400, and 512.
			within["bytes_up"] = [2]float64{162048, 162048}
		}
		for name, v := range fields {
			if w, ok := within[name]; !ok || v < w[0] || v > w[1] {
				t.Errorf("%v: %s is %v, want %v", scheme, name, v, w)
			}
		}
		if len(fields) != len(within) {
			t.Errorf("%v: %d figures, want %d", scheme, len(fields), len(within))
		}
		checkView(t, filepath.Join(dir, "cloud-view.png"), scheme)
	}
}

// TestDemoInterrupted: a run that is interrupted, if only among the lies, leaves the files of
// an earlier one.
func TestDemoInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, name := range []string{"cloud-view.png", "demo.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("earlier"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := demo.Run(ctx, demo.Options{
		Network: "mlp", Scheme: transform.DefaultScheme(), Samples: 8, Batch: 8, OutDir: dir, Daemon: securenetsd,
		Out: io.Discard, Log: t.Output(), Progress: func(label string, done, _ int) {
			if label == "lies" && done == 1 {
				cancel()
			}
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, name := range []string{"cloud-view.png", "demo.json"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != "earlier" {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

// TestThroughputForms: a partial report is written where it has figures.
func TestThroughputForms(t *testing.T) {
	dir := t.TempDir()
	f := throughputForms{dir: filepath.Join(dir, "all"), json: filepath.Join(dir, "copy.json"), csv: filepath.Join(dir, "copy.csv")}
	report := &throughput.Report{Schema: throughput.Schema, Partial: true, Stopped: "interrupted"}
	for _, rows := range [][]throughput.Row{nil, {{Side: "host", Network: "dense-8x2", Images: &throughput.Figure{Median: 7, Q1: 7, Q3: 7}}}} {
		report.Rows = rows
		var out bytes.Buffer
		if err := f.write(&out, report); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			f.json: `"partial": true`, f.csv: "host,dense-8x2,", filepath.Join(f.dir, "report.json"): `"partial": true`,
			filepath.Join(f.dir, "report.csv"): "host,dense-8x2,", filepath.Join(f.dir, "report.md"): "PARTIAL: interrupted",
		} {
			b, err := os.ReadFile(path)
			if rows == nil && !errors.Is(err, fs.ErrNotExist) || rows != nil && !strings.Contains(string(b), want) {
				t.Errorf("%d rows: %s: %q, %v", len(rows), path, b, err)
			}
		}
		if said := out.String(); rows == nil && said != "" || rows != nil && !strings.Contains(said, "The report is in "+f.dir) {
			t.Errorf("%d rows: %s", len(rows), said)
		}
	}
}

// checkView: the picture has the images as they are, and beside them what tells
// nothing of them.
func checkView(t *testing.T, path string, scheme transform.Scheme) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	images, _, err := models.TestSet()
	if err != nil {
		t.Fatal(err)
	}
	grey := func(x, y int) byte { return color.GrayModel.Convert(m.At(4*x, 4*y)).(color.Gray).Y }
	var shades [2]map[byte]bool // of the first image, and of what was seen
	shades[0], shades[1] = map[byte]bool{}, map[byte]bool{}
	for p := range 28 * 28 {
		x, y := 2+p%28, 2+p/28
		if got, want := grey(x, y), byte(images.Data[p]*255); got != want {
			t.Fatalf("%v: pixel %d of the first image is %d, want %d", scheme, p, got, want)
		}
		shades[0][grey(x, y)] = true
		shades[1][grey(x+28+2, y)] = true
	}
	// 784 uniform words have about 244 of 256 shades.
	if scheme.Inputs != transform.InputPermute && len(shades[1]) < 220 {
		t.Errorf("%v: what the cloud saw has %d shades", scheme, len(shades[1]))
	}
}
