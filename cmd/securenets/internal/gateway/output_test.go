package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "github.com/securenets/securenets/api/inference"
	"github.com/securenets/securenets/hostclient"
)

// severalOutputs returns a gateway to a network that gives of each sample, a number v, outputs of
// 2 x 2, of none, and of 3 elements: v+1, v+2 and so on.
func severalOutputs() *Gateway {
	infer := func(_ context.Context, x []float32, n int) (y []float32, err error) {
		for _, v := range x[:n] {
			for i := range 8 {
				y = append(y, v+float32(1+i))
			}
		}
		return y, nil
	}
	return New(Options{Batch: 2, Concurrent: 1, MaxBytes: 4096, Log: slog.New(slog.DiscardHandler)}, Model{
		Name: "heads", Inputs: floatInput(1, 1, 1), Infer: infer, Ready: new(fake).ready,
		Outputs: OutputsOf(hostclient.Description{Output: 8, Outputs: []hostclient.OutputDescription{
			{Name: "states", Shape: []int{2, 2}}, {Name: "value", Shape: []int{}}, {Name: "aux", Shape: []int{3}},
		}}),
	})
}

// Each output is a tensor of its own, of all samples; those that are asked for come, and in that order.
func TestSeveralOutputs(t *testing.T) {
	g := severalOutputs()
	want := map[string]string{
		"states": `{"name":"states","datatype":"FP32","shape":[3,2,2],"data":[11,12,13,14,21,22,23,24,31,32,33,34]}`,
		"value":  `{"name":"value","datatype":"FP32","shape":[3],"data":[15,25,35]}`,
		"aux":    `{"name":"aux","datatype":"FP32","shape":[3,3],"data":[16,17,18,26,27,28,36,37,38]}`,
	}
	const inputs = `{"inputs":[{"name":"input","datatype":"FP32","shape":[3,1],"data":[10,20,30]}]`
	for _, names := range [][]string{nil, {"aux"}, {"value", "states"}, {"aux", "states", "value"}} {
		chosen, tensors := "", []string{want["states"], want["value"], want["aux"]}
		if names != nil {
			tensors = nil
			var list []string
			for _, name := range names {
				list, tensors = append(list, `{"name":"`+name+`"}`), append(tensors, want[name])
			}
			chosen = `,"outputs":[` + strings.Join(list, ",") + `]`
		}
		w := ask(g, "POST", "/v2/models/heads/infer", inputs+chosen+`}`)
		if exp := `"outputs":[` + strings.Join(tensors, ",") + `]}`; w.Code != 200 || !strings.HasSuffix(w.Body.String(), exp) {
			t.Errorf("%v: %d %s, want %s", names, w.Code, w.Body, exp)
		}
	}
	if w := ask(g, "GET", "/v2/models/heads", ""); !strings.Contains(w.Body.String(),
		`"outputs":[{"name":"states","datatype":"FP32","shape":[-1,2,2]},{"name":"value","datatype":"FP32","shape":[-1]},{"name":"aux","datatype":"FP32","shape":[-1,3]}]`) {
		t.Errorf("%s", w.Body)
	}
	for outputs, reason := range map[string]string{
		`[{"name":"output"}]`:                 "model heads has",
		`[{"name":"aux"},{"name":"aux"}]`:     "two outputs",
		`[{"name":"aux"},{"name":"missing"}]`: "missing",
	} {
		if w := ask(g, "POST", "/v2/models/heads/infer", inputs+`,"outputs":`+outputs+`}`); w.Code != 400 || !strings.Contains(w.Body.String(), reason) {
			t.Errorf("%s: %d %s", outputs, w.Code, w.Body)
		}
	}
}

// Of many inputs and outputs, an error names a few.
func TestManyNames(t *testing.T) {
	m := Model{Name: "m"}
	for i := range 26 {
		name := fmt.Sprint(i)
		m.Inputs = append(m.Inputs, Input{Name: name})
		m.Outputs = append(m.Outputs, Output{Name: name})
	}
	if _, err := m.requested([]string{"none"}); err == nil || !strings.Contains(err.Error(), `no output "none": model m has "0", "1", "2", "3", "4", "5" and 20 more`) {
		t.Error(err)
	}
	if _, _, err := m.gather(nil); err == nil || !strings.Contains(err.Error(), `no input "0": model m takes "0", "1", "2", "3", "4", "5" and 20 more`) {
		t.Error(err)
	}
	if _, _, err := m.gather([]given{{name: "none"}}); err == nil || !strings.Contains(err.Error(), `an input "none": model m takes "0", "1", "2", "3", "4", "5" and 20 more`) {
		t.Error(err)
	}
}

// Some outputs may be bytes and others JSON: the bytes are in the order of the outputs.
func TestSeveralOutputsInBinary(t *testing.T) {
	w := ask(severalOutputs(), "POST", "/v2/models/heads/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[2,1],"data":[10,20]}],`+
		`"outputs":[{"name":"aux","parameters":{"binary_data":true}},{"name":"states"},{"name":"value","parameters":{"binary_data":true}}]}`)
	n, err := strconv.Atoi(w.Header().Get(headerLength))
	if err != nil || w.Code != 200 {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	var resp inferResponse
	if err := json.Unmarshal(w.Body.Bytes()[:n], &resp); err != nil {
		t.Fatal(err)
	}
	var got []float32
	for b := range slices.Chunk(w.Body.Bytes()[n:], 4) {
		got = append(got, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	if want := []float32{16, 17, 18, 26, 27, 28, 15, 25}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	sizes := []string{"24", "", "8"}
	for i, o := range resp.Outputs {
		if string(o.Parameters[binarySize]) != sizes[i] || (o.Data == nil) != (sizes[i] != "") {
			t.Errorf("output %d: %+v", i, o)
		}
	}
}

func TestSeveralOutputsByGRPC(t *testing.T) {
	g := severalOutputs()
	x := []float32{10, 20, 30}
	in := &pb.ModelInferRequest_InferInputTensor{Name: "input", Datatype: "FP32", Shape: []int64{3, 1}}
	for _, raw := range []bool{false, true} {
		r := &pb.ModelInferRequest{ModelName: "heads", Inputs: []*pb.ModelInferRequest_InferInputTensor{in}}
		in.Contents = &pb.InferTensorContents{Fp32Contents: x}
		if raw {
			in.Contents, r.RawInputContents = nil, [][]byte{bytesOf(x)}
		}
		for _, name := range []string{"aux", "value"} {
			r.Outputs = append(r.Outputs, &pb.ModelInferRequest_InferRequestedOutputTensor{Name: name})
		}
		resp, err := g.modelInfer(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		want := [][]float32{{16, 17, 18, 26, 27, 28, 36, 37, 38}, {15, 25, 35}}
		if len(resp.Outputs) != 2 || resp.Outputs[0].Name != "aux" || !slices.Equal(resp.Outputs[0].Shape, []int64{3, 3}) ||
			resp.Outputs[1].Name != "value" || !slices.Equal(resp.Outputs[1].Shape, []int64{3}) {
			t.Fatalf("raw %t: %v", raw, resp.Outputs)
		}
		for i, w := range want {
			switch {
			case raw && string(resp.RawOutputContents[i]) != string(bytesOf(w)):
				t.Errorf("output %d: %v", i, resp.RawOutputContents[i])
			case !raw && !slices.Equal(resp.Outputs[i].Contents.GetFp32Contents(), w):
				t.Errorf("output %d: %v", i, resp.Outputs[i].Contents)
			}
		}
	}
}
