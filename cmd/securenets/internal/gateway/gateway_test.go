package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/inference"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/verify"
)

// fake is a network whose outputs are, of each sample, its first element and its last.
type fake struct {
	mu      sync.Mutex
	batches []int
	err     error // of Infer and Ready
}

func (f *fake) infer(_ context.Context, x []float32, n int) ([]float32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.batches = append(f.batches, n)
	var y []float32
	for s := range slices.Chunk(x, len(x)/n) {
		y = append(y, s[0], s[len(s)-1])
	}
	return y, nil
}

func (f *fake) ready(context.Context) error { return f.err }

// start returns a gateway to three networks, of maps, of vectors and of several inputs, and what it logs.
func start(f *fake) (*Gateway, *bytes.Buffer) {
	log := new(bytes.Buffer)
	o := Options{Version: "1.2.3", Batch: 4, Concurrent: 2, MaxBytes: 4096, Log: slog.New(slog.NewTextHandler(log, nil))}
	return New(o,
		Model{Name: "map", Inputs: floatInput(1, 2, 3), Outputs: []Output{{outputName, []int{2}}}, Infer: f.infer, Ready: f.ready},
		Model{Name: "vector", Inputs: floatInput(5, 1, 1), Outputs: []Output{{outputName, []int{2}}}, Infer: f.infer, Ready: f.ready},
		Model{Name: "text", Inputs: textInputs(), Outputs: []Output{{outputName, []int{2}}}, Infer: f.infer, Ready: f.ready}), log
}

func floatInput(c, h, w int) []Input {
	return InputsOf(hostclient.Description{Input: [3]int{c, h, w}})
}

// textInputs are of three ids, three flags, a mask of 2 x 3, and floats, 14 elements in all.
func textInputs() []Input {
	const most = 1 << 24
	return InputsOf(hostclient.Description{Input: [3]int{14, 1, 1}, Inputs: []hostclient.InputDescription{
		{Name: "ids", Shape: [3]int{3, 1, 1}, Type: "int64", Integers: &[2]int{0, 4}},
		{Name: "flags", Shape: [3]int{3, 1, 1}, Type: "bool", Integers: &[2]int{0, 1}},
		{Name: "mask", Shape: [3]int{2, 1, 3}, Type: "int32", Integers: &[2]int{-most, most}},
		{Name: "scale", Shape: [3]int{2, 1, 1}, Type: "float32"},
	}})
}

// ask returns the answer to a request of the REST part.
func ask(g *Gateway, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.Handler().ServeHTTP(w, r)
	return w
}

func TestMetadata(t *testing.T) {
	f := new(fake)
	g, _ := start(f)
	for path, want := range map[string]string{
		"/v2/health/live":                 `{"live":true}`,
		"/v2/health/ready":                `{"ready":true}`,
		"/v2":                             `{"extensions":["binary_tensor_data"],"name":"securenets","version":"1.2.3"}`,
		"/v2/models/map/ready":            `{"name":"map","ready":true}`,
		"/v2/models/map/versions/1/ready": `{"name":"map","ready":true}`,
		"/v2/models/map":                  `{"inputs":[{"name":"input","datatype":"FP32","shape":[-1,1,2,3]}],"name":"map","outputs":[{"name":"output","datatype":"FP32","shape":[-1,2]}],"platform":"securenets","versions":["1"]}`,
		"/v2/models/text": `{"inputs":[{"name":"ids","datatype":"INT64","shape":[-1,3]},{"name":"flags","datatype":"BOOL","shape":[-1,3]},` +
			`{"name":"mask","datatype":"INT32","shape":[-1,2,1,3]},{"name":"scale","datatype":"FP32","shape":[-1,2]}],` +
			`"name":"text","outputs":[{"name":"output","datatype":"FP32","shape":[-1,2]}],"platform":"securenets","versions":["1"]}`,
		"/v2/models/vector/versions/1": `{"inputs":[{"name":"input","datatype":"FP32","shape":[-1,5]}],"name":"vector","outputs":[{"name":"output","datatype":"FP32","shape":[-1,2]}],"platform":"securenets","versions":["1"]}`,
	} {
		if w := ask(g, "GET", path, ""); w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
	f.err = errors.New("away")
	for path, want := range map[string]string{
		"/v2/health/live":      `{"live":true}`,
		"/v2/health/ready":     `{"error":"model map: away","ready":false}`,
		"/v2/models/map/ready": `{"error":"away","name":"map","ready":false}`,
	} {
		w := ask(g, "GET", path, "")
		if live := path == "/v2/health/live"; (w.Code == 200) != live || (w.Code == 503) == live || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
}

// floats of all kinds, that JSON has.
func finite(r *rand.Rand, n int) []float32 {
	x := []float32{0, float32(math.Copysign(0, -1)), math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 1e-7, 123456789}
	for len(x) < n {
		if v := math.Float32frombits(r.Uint32()); v == v && !math.IsInf(float64(v), 0) {
			x = append(x, v)
		}
	}
	return x[:n]
}

// TestRESTForms: every form of a request and of its answer has the same words.
func TestRESTForms(t *testing.T) {
	f := new(fake)
	g, log := start(f)
	const n = 9
	x := finite(rand.New(rand.NewPCG(1, 2)), n*6)
	flat, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var nested [n][1][2][3]float32
	for i, v := range x {
		nested[i/6][0][i/3%2][i%3] = v
	}
	rows, err := json.MarshalIndent(nested, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	raw := string(bytesOf(x))
	y, err := new(fake).infer(t.Context(), x, n)
	if err != nil {
		t.Fatal(err)
	}
	for in, tail := range map[string]string{
		`"shape":[9,1,2,3],"data":` + string(flat):                                "",
		`"shape":[9,6],"data":` + string(flat):                                    "",
		`"shape":[9,1,2,3],"data":` + string(rows):                                "",
		`"shape":[9,1,2,3],"parameters":{"binary_data_size":` + size(raw) + `}`:   raw,
		`"parameters":{"binary_data_size":` + size(raw) + `},"shape":[9,6]`:       raw,
		`"unknown":1,"shape":[9,6],"parameters":{},"data":[` + string(flat) + `]`: "",
	} {
		for choice, inBinary := range map[string]bool{
			``: false, `,"outputs":[]`: false, `,"outputs":[{"name":"output"}]`: false,
			`,"outputs":[{"name":"output","parameters":{"binary_data":true}}]`:                                           true,
			`,"parameters":{"binary_data_output":true}`:                                                                  true,
			`,"parameters":{"binary_data_output":true},"outputs":[{"name":"output","parameters":{"binary_data":false}}]`: false,
			`,"parameters":{"timeout":5,"other":"x","binary_data_output":false}`:                                         false,
		} {
			head := `{"id":"a\"1","inputs":[{"name":"input","datatype":"FP32",` + in + `}]` + choice + `}`
			var headers []string
			if tail != "" {
				headers = []string{headerLength, size(head)}
			}
			f.batches = nil
			w := ask(g, "POST", "/v2/models/map/infer", head+tail, headers...)
			if w.Code != 200 {
				t.Errorf("%.80s: %d %s", in+choice, w.Code, w.Body)
				continue
			}
			if !slices.Equal(f.batches, []int{4, 4, 1}) {
				t.Errorf("batches of %v", f.batches)
			}
			text, rest := w.Body.Bytes(), []byte(nil)
			if h := w.Header().Get(headerLength); inBinary != (h != "") {
				t.Errorf("%.80s: %s is %q", in+choice, headerLength, h)
			} else if inBinary {
				k, err := strconv.Atoi(h)
				if err != nil {
					t.Fatal(err)
				}
				text, rest = text[:k], text[k:]
			}
			var got struct {
				Model   string `json:"model_name"`
				Version string `json:"model_version"`
				ID      string
				Outputs []struct {
					Name, Datatype string
					Shape          []int64
					Parameters     struct {
						Size int `json:"binary_data_size"`
					}
					Data []float32
				}
			}
			if err := json.Unmarshal(text, &got); err != nil || len(got.Outputs) != 1 {
				t.Fatalf("%v: %s", err, text)
			}
			o := got.Outputs[0]
			if inBinary {
				if len(rest) != o.Parameters.Size || o.Data != nil {
					t.Errorf("%d bytes, said to be %d, and %v", len(rest), o.Parameters.Size, o.Data)
				}
				o.Data = make([]float32, len(rest)/4)
				if _, err := binary.Decode(rest, binary.LittleEndian, o.Data); err != nil {
					t.Error(err)
				}
			}
			if got.Model != "map" || got.Version != "1" || got.ID != `a"1` || o.Name != "output" || o.Datatype != "FP32" || !slices.Equal(o.Shape, []int64{n, 2}) {
				t.Errorf("%.80s: %s", in+choice, text)
			}
			if !slices.EqualFunc(o.Data, y, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Errorf("%.80s: %v, want %v", in+choice, o.Data, y)
			}
		}
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
}

func size(s string) string { return strconv.Itoa(len(s)) }

// TestRESTRefuses: what makes no sense is refused with what is wrong about it, and nothing runs.
func TestRESTRefuses(t *testing.T) {
	good := `{"name":"input","datatype":"FP32","shape":[1,6],"data":[1,2,3,4,5,6]}`
	in := func(tensor string) string { return `{"inputs":[` + tensor + `]}` }
	as := func(from, to string) string { return in(strings.Replace(good, from, to, 1)) }
	for _, c := range []struct {
		path, body string
		status     int
		want       string
		headers    []string
	}{
		{"/v2/models/none/infer", in(good), 404, `no model \"none\"`, nil},
		{"/v2/models/map/versions/2/infer", in(good), 404, `no version \"2\" of model map: its version is 1`, nil},
		{"/v2/models/map/infer/", in(good), 404, "no endpoint POST /v2/models/map/infer/", nil},
		{"/v2/models/map", in(good), 405, "method POST, want GET", nil},
		{"/", in(good), 404, "no endpoint", nil},
		{"/v2/models/map/infer", "", 400, "not what the protocol has", nil},
		{"/v2/models/map/infer", in(good) + "x", 400, "not what the protocol has", nil},
		{"/v2/models/map/infer", `{"inputs":5}`, 400, "not what the protocol has", nil},
		{"/v2/models/map/infer", `{}`, 400, `no input \"input\": model map takes \"input\"`, nil},
		{"/v2/models/map/infer", in(good + "," + good), 400, `two inputs \"input\"`, nil},
		{"/v2/models/map/infer", as(`"input"`, `"image"`), 400, `an input \"image\": model map takes \"input\"`, nil},
		{"/v2/models/map/infer", as("FP32", "FP64"), 400, "want FP32", nil},
		{"/v2/models/map/infer", as("[1,6]", "[6]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[0,6]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[-1,6]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[1,2,3]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[1,1,3,2]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[9223372036854775807,6]"), 400, "want [1 2 3]", nil},
		{"/v2/models/map/infer", as("[1,6]", "[100000000,6]"), 400, "6 elements", nil},
		{"/v2/models/map/infer", as("[1,6]", "[1e0,6]"), 400, "not what the protocol has", nil},
		{"/v2/models/map/infer", as("[1,6]", "[2,6]"), 400, "6 elements in input \\\"input\\\", its shape has 12", nil},
		{"/v2/models/map/infer", as(",6]}", "]}"), 400, "5 elements", nil},
		{"/v2/models/map/infer", as(",6]}", ",6,7]}"), 400, "7 elements", nil},
		{"/v2/models/map/infer", as(",6]}", ",1e40]}"), 400, "1e40", nil},
		{"/v2/models/map/infer", as(",6]}", ",null]}"), 400, "something other than numbers", nil},
		{"/v2/models/map/infer", as(",6]}", `,"6"]}`), 400, "something other than numbers", nil},
		{"/v2/models/map/infer", as(",6]}", `,{"6":6}]}`), 400, "something other than numbers", nil},
		{"/v2/models/map/infer", as(`,"data":[1,2,3,4,5,6]`, ""), 400, "not an array", nil},
		{"/v2/models/map/infer", as(`[1,2,3,4,5,6]`, "7"), 400, "not an array", nil},
		{"/v2/models/map/infer", as(`"data"`, `"parameters":{"shared_memory_region":"r"},"data"`), 400, `parameter \"shared_memory_region\"`, nil},
		{"/v2/models/map/infer", as(`"data"`, `"parameters":{"binary_data_size":0},"data"`), 400, "data beside", nil},
		{"/v2/models/map/infer", as(`"data"`, `"parameters":{"binary_data_size":-1},"x"`), 400, "binary_data_size", nil},
		{"/v2/models/map/infer", as(`"data"`, `"parameters":{"binary_data_size":24},"x"`), 400, "0 bytes of tensors are left for input \\\"input\\\", binary_data_size is 24", nil},
		{"/v2/models/map/infer", as(`"data"`, `"parameters":{"binary_data_size":7},"x"`) + "1234567", 400, "7 bytes of FP32", []string{headerLength, "HEAD"}},
		{"/v2/models/map/infer", as(`"data"`, `"parameters":{"binary_data_size":8},"x"`) + "12345678", 400, "2 elements", []string{headerLength, "HEAD"}},
		{"/v2/models/map/infer", in(good) + "tail", 400, "4 bytes of tensors", []string{headerLength, "HEAD"}},
		{"/v2/models/map/infer", in(good), 400, headerLength, []string{headerLength, "-1"}},
		{"/v2/models/map/infer", in(good), 400, headerLength, []string{headerLength, "100000"}},
		{"/v2/models/map/infer", in(good), 400, "not what the protocol has", []string{headerLength, "0"}},
		{"/v2/models/map/infer", `{"inputs":[` + good + `],"outputs":[{"name":"scores"}]}`, 400, "model map has", nil},
		{"/v2/models/map/infer", `{"inputs":[` + good + `],"outputs":[{"name":"output"},{"name":"output"}]}`, 400, "two outputs", nil},
		{"/v2/models/map/infer", `{"inputs":[` + good + `],"outputs":[{"name":"output","parameters":{"classification":1}}]}`, 400, "classification", nil},
		{"/v2/models/map/infer", `{"inputs":[` + good + `],"outputs":[{"name":"output","parameters":{"binary_data":1}}]}`, 400, `parameter \"binary_data\" is 1`, nil},
		{"/v2/models/map/infer", `{"inputs":[` + good + `],"parameters":{"binary_data_output":"yes"}}`, 400, "binary_data_output", nil},
		{"/v2/models/map/infer", in(good), 415, "encoding", []string{"Content-Encoding", "gzip"}},
		{"/v2/models/map/infer", strings.Repeat(" ", 4097), 413, "more than the 4096 bytes", nil},
	} {
		f := new(fake)
		g, log := start(f)
		if i := slices.Index(c.headers, "HEAD"); i >= 0 {
			c.headers[i] = strconv.Itoa(strings.LastIndex(c.body, "}") + 1)
		}
		w := ask(g, "POST", c.path, c.body, c.headers...)
		var told struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || told.Error == "" {
			t.Errorf("%s %.90s: no error in %s", c.path, c.body, w.Body)
		}
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %.90s: %d %s, want %d and %q", c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
		if f.batches != nil || log.Len() > 0 {
			t.Errorf("%s %.90s: it ran, or log %q", c.path, c.body, log)
		}
		if len(g.slots) != 0 {
			t.Errorf("%s %.90s: it holds a place", c.path, c.body)
		}
	}
}

// TestCheck: each model that cannot be run is logged once with the reason, none that can, and
// nothing once the check is over.
func TestCheck(t *testing.T) {
	f := &fake{}
	g, log := start(f)
	g.Check(t.Context())
	if log.Len() > 0 {
		t.Error(log)
	}
	f.err = errors.New("nobody there")
	g.models[1].Ready = func(context.Context) error { return nil }
	g.Check(t.Context())
	for name, n := range map[string]int{"map": 1, "vector": 0, "text": 1} {
		if strings.Count(log.String(), `level=WARN msg="model cannot be run now" model=`+name+` error="nobody there"`) != n {
			t.Errorf("%s: %s", name, log)
		}
	}
	log.Reset()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	g.Check(over)
	if log.Len() > 0 {
		t.Error(log)
	}
}

// TestNotFinite: a request with a value that is not finite is refused before any of it runs,
// which would take pads, or is run together with others.
func TestNotFinite(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		f := new(fake)
		g, log := start(f)
		x := make([]float32, 9*6)
		x[52] = float32(v)
		raw := string(bytesOf(x))
		head := `{"inputs":[{"name":"input","datatype":"FP32","shape":[9,6],"parameters":{"binary_data_size":` + size(raw) + `}}]}`
		w := ask(g, "POST", "/v2/models/map/infer", head+raw, headerLength, size(head))
		if want := `element 4 of input \"input\" of sample 8 is not finite`; w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%v: %d %s, want %q", v, w.Code, w.Body, want)
		}
		if f.batches != nil || log.Len() > 0 {
			t.Errorf("%v: ran %v, or log %q", v, f.batches, log)
		}
	}
}

// TestLargeAnswer: a request whose answer would take much more memory than it does is refused.
func TestLargeAnswer(t *testing.T) {
	f := new(fake)
	g := New(Options{Batch: 4, Concurrent: 1, MaxBytes: 4096, Log: slog.New(slog.DiscardHandler)},
		Model{Name: "wide", Inputs: floatInput(1, 1, 1), Outputs: []Output{{outputName, []int{512}}}, Infer: f.infer, Ready: f.ready})
	for n, want := range map[int]int{2: 200, 3: 400} {
		data := strings.TrimSuffix(strings.Repeat("0,", n), ",")
		w := ask(g, "POST", "/v2/models/wide/infer", fmt.Sprintf(`{"inputs":[{"name":"input","datatype":"FP32","shape":[%d,1],"data":[%s]}]}`, n, data))
		if w.Code != want || want == 400 && !strings.Contains(w.Body.String(), "2 samples at most") {
			t.Errorf("%d samples: %d %s", n, w.Code, w.Body)
		}
	}
}

// TestStrangers: what comes by TCP for another host's name, or from another's web page, gets nothing.
func TestStrangers(t *testing.T) {
	g, _ := start(new(fake))
	l, err := g.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.Serve(ctx, l, nil, time.Minute) }()
	port := l.Addr().(*net.TCPAddr).Port
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:80": 200, "127.0.0.1": 200, "127.1.2.3:1": 200, "[::1]:1": 200, "[::1]": 200,
		"evil.example": 403, "localhost.evil.example:80": 403, "10.0.0.1": 403, "0.0.0.0": 403, "[::ffff:10.0.0.1]": 403, "127.0.0.1.nip.io": 403,
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://127.0.0.1:%d/v2", port), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("host %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	body := `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,5],"data":[1,2,3,4,5]}]}`
	if w := ask(g, "POST", "/v2/models/vector/infer", body, "Origin", "http://evil.example"); w.Code != 403 || !strings.HasPrefix(w.Body.String(), `{"error":`) {
		t.Errorf("from another's page: %d %s", w.Code, w.Body)
	}
	if w := ask(g, "POST", "/v2/models/vector/infer", body, "Origin", "http://localhost"); w.Code != 200 {
		t.Errorf("from a page of its own: %d %s", w.Code, w.Body)
	}
}

// TestMethods: an endpoint that is asked by another method says which one it takes.
func TestMethods(t *testing.T) {
	g, _ := start(new(fake))
	for path, allow := range map[string]string{
		"/v2": "GET, HEAD", "/v2/health/live": "GET, HEAD", "/v2/health/ready": "GET, HEAD", "/v2/models/map": "GET, HEAD", "/v2/models/map/ready": "GET, HEAD",
		"/v2/models/map/versions/1": "GET, HEAD", "/v2/models/map/infer": "POST", "/v2/models/map/versions/1/infer": "POST",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
			w := ask(g, method, path, "")
			if takes := strings.Contains(allow, method); takes != (w.Code != 405) {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			} else if !takes && (w.Header().Get("Allow") != allow || !strings.Contains(w.Body.String(), `{"error":"method `+method)) {
				t.Errorf("%s %s: allows %q, %s", method, path, w.Header().Get("Allow"), w.Body)
			}
		}
	}
}

func TestCheckAddresses(t *testing.T) {
	for _, both := range [][2]string{{"127.0.0.1:8000", "127.0.0.1:8000"}, {"127.0.0.1:8000", "localhost:8000"}, {"unix:s", "unix:./s"}, {"", "8000"}, {"8000", ""}} {
		if err := CheckAddresses(both[0], both[1]); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", both, err)
		}
	}
	for _, both := range [][2]string{{"127.0.0.1:8000", "127.0.0.1:8001"}, {"127.0.0.1:0", "127.0.0.1:0"}, {"unix:a", "unix:b"}, {"unix:a", ""}, {"", "[::1]:80"}, {"", ""}} {
		if err := CheckAddresses(both[0], both[1]); err != nil {
			t.Errorf("%q: %v", both, err)
		}
	}
}

func TestListen(t *testing.T) {
	g, _ := start(new(fake))
	for _, addr := range []string{"", "localhost", "8000", ":8000", "0.0.0.0:8000", "10.0.0.1:8000", "example.org:80", "[::]:80", "tls:127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:none"} {
		if l, err := g.Listen(addr); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v, %v", addr, l, err)
		}
	}
	for _, addr := range []string{"unix:", "unix:@abstract", "unix:/" + strings.Repeat("x", 200)} {
		if l, err := g.Listen(addr); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("%q: %v, %v", addr, l, err)
		}
	}
	path := filepath.Join(t.TempDir(), "run", "s")
	l, err := g.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
}

// dial serves the gRPC part of a gateway until the test ends, and returns a client of it.
func dial(t *testing.T, g *Gateway) pb.GRPCInferenceServiceClient {
	path := filepath.Join(t.TempDir(), "s")
	l, err := g.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, nil, l, time.Minute) }()
	cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pb.NewGRPCInferenceServiceClient(cc)
}

func TestGRPC(t *testing.T) {
	f := new(fake)
	g, log := start(f)
	c := dial(t, g)
	ctx := t.Context()
	if r, err := c.ServerLive(ctx, &pb.ServerLiveRequest{}); err != nil || !r.Live {
		t.Error(r, err)
	}
	if r, err := c.ServerReady(ctx, &pb.ServerReadyRequest{}); err != nil || !r.Ready {
		t.Error(r, err)
	}
	if r, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "map", Version: "1"}); err != nil || !r.Ready {
		t.Error(r, err)
	}
	if r, err := c.ServerMetadata(ctx, &pb.ServerMetadataRequest{}); err != nil || r.Name != "securenets" || r.Version != "1.2.3" {
		t.Error(r, err)
	}
	m, err := c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "map"})
	if err != nil || m.Name != "map" || !slices.Equal(m.Versions, []string{"1"}) || !slices.Equal(m.Inputs[0].Shape, []int64{-1, 1, 2, 3}) || !slices.Equal(m.Outputs[0].Shape, []int64{-1, 2}) {
		t.Error(m, err)
	}

	const n = 5
	x := finite(rand.New(rand.NewPCG(3, 4)), n*5)
	want, err := new(fake).infer(ctx, x, n)
	if err != nil {
		t.Fatal(err)
	}
	request := func() *pb.ModelInferRequest {
		return &pb.ModelInferRequest{ModelName: "vector", Id: "7", Inputs: []*pb.ModelInferRequest_InferInputTensor{{
			Name: "input", Datatype: "FP32", Shape: []int64{n, 5}, Contents: &pb.InferTensorContents{Fp32Contents: x},
		}}}
	}
	raw := func(r *pb.ModelInferRequest) {
		r.Inputs[0].Contents, r.RawInputContents = nil, [][]byte{bytesOf(x)}
	}
	for _, binary := range []bool{false, true} {
		r := request()
		r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "output"}}
		if binary {
			raw(r)
		}
		resp, err := c.ModelInfer(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		o := resp.Outputs[0]
		y := o.Contents.GetFp32Contents()
		if binary {
			if y != nil || len(resp.RawOutputContents) != 1 {
				t.Fatal(resp)
			}
			if y, err = (&Input{Shape: [3]int{2, 1, 1}, Datatype: datatype}).raw(resp.RawOutputContents[0]); err != nil {
				t.Fatal(err)
			}
		}
		if resp.ModelName != "vector" || resp.ModelVersion != "1" || resp.Id != "7" || o.Name != "output" || o.Datatype != "FP32" || !slices.Equal(o.Shape, []int64{n, 2}) {
			t.Error(resp)
		}
		if !slices.EqualFunc(y, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Errorf("binary %v: %v, want %v", binary, y, want)
		}
	}
	f.batches = nil
	parameter := map[string]*pb.InferParameter{"classification": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1}}}
	for name, wrong := range map[string]struct {
		change func(*pb.ModelInferRequest)
		code   codes.Code
	}{
		"no model":        {func(r *pb.ModelInferRequest) { r.ModelName = "none" }, codes.NotFound},
		"version":         {func(r *pb.ModelInferRequest) { r.ModelVersion = "2" }, codes.NotFound},
		"no input":        {func(r *pb.ModelInferRequest) { r.Inputs = nil }, codes.InvalidArgument},
		"two inputs":      {func(r *pb.ModelInferRequest) { r.Inputs = append(r.Inputs, r.Inputs[0]) }, codes.InvalidArgument},
		"type":            {func(r *pb.ModelInferRequest) { r.Inputs[0].Datatype = "UINT8" }, codes.InvalidArgument},
		"shape":           {func(r *pb.ModelInferRequest) { r.Inputs[0].Shape = []int64{n, 4} }, codes.InvalidArgument},
		"input parameter": {func(r *pb.ModelInferRequest) { r.Inputs[0].Parameters = parameter }, codes.InvalidArgument},
		"output parameter": {func(r *pb.ModelInferRequest) {
			r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "output", Parameters: parameter}}
		}, codes.InvalidArgument},
		"output": {func(r *pb.ModelInferRequest) {
			r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y"}}
		}, codes.InvalidArgument},
		"no contents": {func(r *pb.ModelInferRequest) { r.Inputs[0].Contents = nil }, codes.InvalidArgument},
		"contents of another": {func(r *pb.ModelInferRequest) {
			r.Inputs[0].Contents = &pb.InferTensorContents{Fp64Contents: make([]float64, n*5)}
		}, codes.InvalidArgument},
		"both contents": {func(r *pb.ModelInferRequest) { r.RawInputContents = [][]byte{bytesOf(x)} }, codes.InvalidArgument},
		"two raw":       {func(r *pb.ModelInferRequest) { raw(r); r.RawInputContents = append(r.RawInputContents, nil) }, codes.InvalidArgument},
		"odd raw":       {func(r *pb.ModelInferRequest) { raw(r); r.RawInputContents[0] = make([]byte, 4*n*5+1) }, codes.InvalidArgument},
		"short raw":     {func(r *pb.ModelInferRequest) { raw(r); r.RawInputContents[0] = make([]byte, 4) }, codes.InvalidArgument},
		"too large":     {func(r *pb.ModelInferRequest) { r.Id = strings.Repeat("x", 4096) }, codes.ResourceExhausted},
	} {
		r := request()
		wrong.change(r)
		if _, err := c.ModelInfer(ctx, r); status.Code(err) != wrong.code {
			t.Errorf("%s: %v, want %v", name, err, wrong.code)
		}
	}
	if f.batches != nil || log.Len() > 0 {
		t.Errorf("ran %v, or log %s", f.batches, log)
	}
	if _, err := c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "none"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if _, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "none"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	f.err = errors.New("away")
	if r, err := c.ServerReady(ctx, &pb.ServerReadyRequest{}); err != nil || r.Ready {
		t.Error(r, err)
	}
	if r, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "map"}); err != nil || r.Ready {
		t.Error(r, err)
	}
}

// TestFailures: each error of a session has a status of its kind, both ways, and is logged
// where the application is not to blame.
func TestFailures(t *testing.T) {
	cloud := func(code codes.Code) error {
		return &hostclient.CloudError{Addr: "unix:x", Err: &wire.Error{Code: code, Reason: "R"}}
	}
	for _, c := range []struct {
		err    error
		code   codes.Code
		status int
		log    string
	}{
		{hostclient.ErrInput, codes.InvalidArgument, 400, ""},
		{&hostclient.CloudError{Err: &verify.RejectedError{}}, codes.DataLoss, 502, "level=ERROR"},
		{fmt.Errorf("x: %w", hostclient.ErrQuarantined), codes.Unavailable, 503, "level=WARN"},
		{hostclient.ErrUnavailable, codes.Unavailable, 503, "level=WARN"},
		{hostclient.ErrBadAnswer, codes.Unavailable, 503, "level=WARN"},
		{hostclient.ErrClosed, codes.Unavailable, 503, "level=WARN"},
		{hostclient.ErrTimeout, codes.DeadlineExceeded, 504, "level=WARN"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, 504, "level=WARN"},
		{fmt.Errorf("%w: open /a/file", hostclient.ErrNoPads), codes.ResourceExhausted, 503, "level=WARN"},
		{cloud(codes.ResourceExhausted), codes.ResourceExhausted, 503, "level=WARN"},
		{cloud(codes.NotFound), codes.Unavailable, 503, "level=WARN"},
		{cloud(codes.InvalidArgument), codes.Unavailable, 503, "level=WARN"},
		{context.Canceled, codes.Canceled, 499, ""},
		{errors.New("open /a/file"), codes.Internal, 500, "level=WARN"},
	} {
		g, log := start(&fake{err: c.err})
		w := ask(g, "POST", "/v2/models/vector/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,5],"data":[1,2,3,4,5]}]}`)
		if w.Code != c.status {
			t.Errorf("%v: %d %s, want %d", c.err, w.Code, w.Body, c.status)
		}
		_, err := dial(t, g).ModelInfer(t.Context(), &pb.ModelInferRequest{ModelName: "vector", Inputs: []*pb.ModelInferRequest_InferInputTensor{{
			Name: "input", Datatype: "FP32", Shape: []int64{1, 5}, Contents: &pb.InferTensorContents{Fp32Contents: make([]float32, 5)},
		}}})
		if status.Code(err) != c.code {
			t.Errorf("%v: %v, want %v", c.err, err, c.code)
		}
		if told := w.Body.String() + err.Error(); strings.Contains(told, "/a/file") {
			t.Errorf("%v: told %s", c.err, told)
		}
		if lines := strings.Count(log.String(), c.log); c.log != "" && lines != 2 || c.log == "" && log.Len() > 0 {
			t.Errorf("%v: log %s", c.err, log)
		}
	}
}

// TestWrongSample: a sample that is refused is named by its place in the request, however that is
// cut into batches.
func TestWrongSample(t *testing.T) {
	g := New(Options{Batch: 4, Concurrent: 1, MaxBytes: 4096, Log: slog.New(slog.DiscardHandler)},
		Model{Name: "vector", Inputs: floatInput(1, 1, 1), Outputs: []Output{{outputName, []int{1}}}, Infer: func(_ context.Context, x []float32, n int) ([]float32, error) {
			if i := slices.Index(x, 9); i >= 0 {
				return nil, &hostclient.SampleError{Sample: i, Err: errors.New("too large")}
			}
			return x, nil
		}})
	w := ask(g, "POST", "/v2/models/vector/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[7,1],"data":[1,2,3,4,5,9,6]}]}`)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "sample 5: too large") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestRejectionIsNotDetailed: which samples of a batch were wrong is in the log, and no
// application's affair: they are others', too, and one that works for the cloud would tell it.
func TestRejectionIsNotDetailed(t *testing.T) {
	wrong := &verify.RejectedError{Samples: []int{171, 188}}
	g, log := start(&fake{err: &hostclient.CloudError{Role: 1, Addr: "unix:x", Err: wrong}})
	w := ask(g, "POST", "/v2/models/vector/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,5],"data":[1,2,3,4,5]}]}`)
	_, err := dial(t, g).ModelInfer(t.Context(), &pb.ModelInferRequest{ModelName: "vector", Inputs: []*pb.ModelInferRequest_InferInputTensor{{
		Name: "input", Datatype: "FP32", Shape: []int64{1, 5}, Contents: &pb.InferTensorContents{Fp32Contents: make([]float32, 5)},
	}}})
	if w.Code != 502 || status.Code(err) != codes.DataLoss {
		t.Errorf("%d, %v", w.Code, err)
	}
	for _, text := range []string{w.Body.String(), err.Error()} {
		if strings.Contains(text, "171") || strings.Contains(text, "2 samples") || !strings.Contains(text, "answered wrongly") {
			t.Errorf("an application is told %s", text)
		}
	}
	if strings.Count(log.String(), "the first is 171") != 2 {
		t.Errorf("log %s", log)
	}
}

// TestPlaces: no more requests run than there are places for, and one that waits for a place
// is not read and can be given up.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := start(new(fake))
		var running atomic.Int32
		finish := make(chan struct{})
		g.models[0].line.infer = func(_ context.Context, _ []float32, n int) ([]float32, error) {
			running.Add(1)
			<-finish
			running.Add(-1)
			return make([]float32, 2*n), nil
		}
		body := `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,6],"data":[1,2,3,4,5,6]}]}`
		done := make(chan int, 5)
		for range 3 {
			go func() { done <- ask(g, "POST", "/v2/models/map/infer", body).Code }()
			synctest.Wait()
		}
		ctx, giveUp := context.WithCancel(t.Context())
		unread := strings.NewReader(body)
		go func() {
			r := httptest.NewRequestWithContext(ctx, "POST", "/v2/models/map/infer", io.NopCloser(unread))
			w := httptest.NewRecorder()
			g.Handler().ServeHTTP(w, r)
			done <- w.Code
		}()
		synctest.Wait()
		if n := running.Load(); n != 2 || unread.Len() != len(body) {
			t.Errorf("%d run, %d bytes of one that waits are not read", n, unread.Len())
		}
		giveUp()
		synctest.Wait()
		if code := <-done; code != clientClosed {
			t.Errorf("given up: %d", code)
		}
		close(finish)
		for range 3 {
			if code := <-done; code != 200 {
				t.Errorf("%d", code)
			}
		}
	})
}

// TestStop: what is in work when a gateway is to end is finished, if it does not take too long.
func TestStop(t *testing.T) {
	for _, inTime := range []bool{true, false} {
		g, _ := start(new(fake))
		began, finish := make(chan struct{}, 2), make(chan struct{})
		g.models[0].line.infer = func(ctx context.Context, _ []float32, n int) ([]float32, error) {
			began <- struct{}{}
			select {
			case <-finish:
				return make([]float32, 2*n), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		dir := t.TempDir()
		var at [2]net.Listener
		for i := range at {
			l, err := g.Listen("unix:" + filepath.Join(dir, strconv.Itoa(i)))
			if err != nil {
				t.Fatal(err)
			}
			at[i] = l
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		atMost := time.Minute
		if !inTime {
			atMost = time.Millisecond
		}
		go func() { ended <- g.Serve(ctx, at[0], at[1], atMost) }()
		answers := make(chan error, 2)
		go func() {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "0"))
			}}}
			resp, err := c.Post("http://localhost/v2/models/map/infer", "application/json",
				strings.NewReader(`{"inputs":[{"name":"input","datatype":"FP32","shape":[1,6],"data":[1,2,3,4,5,6]}]}`))
			if err == nil {
				if resp.Body.Close(); resp.StatusCode != 200 {
					err = errors.New(resp.Status)
				}
			}
			answers <- err
		}()
		go func() {
			cc, err := grpc.NewClient("unix:"+filepath.Join(dir, "1"), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err == nil {
				_, err = pb.NewGRPCInferenceServiceClient(cc).ModelInfer(context.Background(), &pb.ModelInferRequest{ModelName: "map",
					Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "FP32", Shape: []int64{1, 6}, Contents: &pb.InferTensorContents{Fp32Contents: make([]float32, 6)}}}})
				cc.Close()
			}
			answers <- err
		}()
		<-began
		<-began
		stop()
		if inTime {
			close(finish)
		}
		for range 2 {
			if err := <-answers; (err == nil) != inTime {
				t.Errorf("in time %v: %v", inTime, err)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "0")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket stays: %v", err)
		}
	}
}

// FuzzNumbers: numbers finds what encoding/json does.
func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"[1,2]", "[[1,-2e-3],[0.5]]", "[]", "[[],[ ]]", " [1]", "[1e40]", "[null]", `["1"]`, "[-0.0]", "[1e-60,3.4028235e38]", "5", "{}", "[1\n,\t2 ]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var raw json.RawMessage
		if json.Unmarshal([]byte(text), &raw) != nil {
			return // it is read as a part of valid JSON alone
		}
		var value any
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.UseNumber()
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		var want []float32
		good := true
		var flatten func(any)
		flatten = func(v any) {
			switch v := v.(type) {
			case []any:
				for _, e := range v {
					flatten(e)
				}
			case json.Number:
				w, err := strconv.ParseFloat(v.String(), 32)
				good = good && err == nil
				want = append(want, float32(w))
			default:
				good = false
			}
		}
		flatten(value)
		if _, ok := value.([]any); !ok {
			good = false
		}
		got, err := (&Input{Shape: [3]int{5, 1, 1}, Datatype: datatype}).numbers(10, string(raw))
		if (err == nil) != good {
			t.Fatalf("%q: %v, want good %v", text, err, good)
		}
		if good && !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
	})
}

// TestClients asks by Triton's own clients, where PYTHON_CLIENTS names a Python that has
// testdata/requirements.txt: see "make check-clients".
func TestClients(t *testing.T) {
	python := os.Getenv("PYTHON_CLIENTS")
	if python == "" {
		t.Skip("PYTHON_CLIENTS is not set")
	}
	g, log := start(new(fake))
	var at [2]net.Listener
	for i := range at {
		l, err := g.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[i] = l
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.Serve(ctx, at[0], at[1], time.Minute) }()
	out, err := exec.CommandContext(t.Context(), python, "testdata/clients.py", at[0].Addr().String(), at[1].Addr().String(), "map", "text").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("tritonclient.http: 9 answers")) || !bytes.Contains(out, []byte("tritonclient.grpc: 4 answers")) {
		t.Errorf("%v\n%s", err, out)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
}
