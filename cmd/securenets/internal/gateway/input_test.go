package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/inference"
	"github.com/securenets/securenets/hostclient"
)

// Two samples of textInputs.
var (
	someIDs   = []int64{4, 0, 1, 2, 3, 3}
	someFlags = []bool{true, false, true, false, false, true}
	someMask  = []int32{1, -1 << 24, 0, 1, 1, 1 << 24, 0, 1, 2, 3, 4, 5}
	someScale = []float32{0.5, -0.25, 1e-7, 3e38}
	someTexts = []float32{
		4, 0, 1, 1, 0, 1, 1, -1 << 24, 0, 1, 1, 1 << 24, 0.5, -0.25,
		2, 3, 3, 0, 0, 1, 0, 1, 2, 3, 4, 5, 1e-7, 3e38,
	}
)

// raw returns the little-endian bytes of v.
func raw(v any) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}

// keep returns a gateway, and what its networks ran last.
func keep(t *testing.T) (*Gateway, *[]float32) {
	g, log := start(new(fake))
	ran := new([]float32)
	for i := range g.models {
		g.models[i].line.infer = func(_ context.Context, x []float32, n int) ([]float32, error) {
			*ran = slices.Clone(x)
			return make([]float32, 2*n), nil
		}
	}
	t.Cleanup(func() {
		if log.Len() > 0 {
			t.Errorf("log: %s", log)
		}
	})
	return g, ran
}

// textRequest returns a request for two samples, and the bytes behind it. The inputs that
// inBytes names are there.
func textRequest(inBytes string) (head, tail string) {
	var inputs []string
	add := func(name, datatype, shape string, v any, b []byte) {
		how := ""
		if strings.Contains(inBytes, name) {
			tail += string(b)
			how = fmt.Sprintf(`"parameters":{"binary_data_size":%d}`, len(b))
		} else {
			data, err := json.Marshal(v)
			if err != nil {
				panic(err)
			}
			how = `"data":` + string(data)
		}
		inputs = append(inputs, fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":%s,%s}`, name, datatype, shape, how))
	}
	add("scale", "FP32", "[2,2]", someScale, raw(someScale))
	add("ids", "INT64", "[2,3]", someIDs, raw(someIDs))
	add("mask", "INT32", "[2,2,3]", someMask, raw(someMask))
	add("flags", "BOOL", "[2,3]", someFlags, raw(someFlags))
	return `{"inputs":[` + strings.Join(inputs, ",") + `]}`, tail
}

// TestTexts: inputs come in any order, each in any form, and are put together sample by sample.
func TestTexts(t *testing.T) {
	g, ran := keep(t)
	for _, inBytes := range []string{"", "ids", "scale mask", "ids scale mask flags"} {
		head, tail := textRequest(inBytes)
		*ran = nil
		w := ask(g, "POST", "/v2/models/text/infer", head+tail, headerLength, size(head))
		if w.Code != 200 || !slices.Equal(*ran, someTexts) {
			t.Errorf("%q in bytes: %d %s, ran %v", inBytes, w.Code, w.Body, *ran)
		}
	}
	head, _ := textRequest("")
	for from, to := range map[string]string{
		"[2,2,3]": "[2,2,1,3]", `"shape":[2,2,3]`: `"shape":[2,6]`, "[4,0,1,2,3,3]": "[[4,0,1],[2,3,3]]",
		"[true,false,true,false,false,true]": "[1, 0,1,[false],false,1]",
	} {
		*ran = nil
		w := ask(g, "POST", "/v2/models/text/infer", strings.Replace(head, from, to, 1))
		if w.Code != 200 || !slices.Equal(*ran, someTexts) {
			t.Errorf("%s for %s: %d %s, ran %v", to, from, w.Code, w.Body, *ran)
		}
	}
	c := dial(t, g)
	for _, inBytes := range []bool{false, true} {
		*ran = nil
		if _, err := c.ModelInfer(t.Context(), textCall(inBytes)); err != nil || !slices.Equal(*ran, someTexts) {
			t.Errorf("in bytes %v: %v, ran %v", inBytes, err, *ran)
		}
	}
	m, err := c.ModelMetadata(t.Context(), &pb.ModelMetadataRequest{Name: "text"})
	if err != nil || len(m.Inputs) != 4 || m.Inputs[0].Datatype != "INT64" || m.Inputs[1].Datatype != "BOOL" || m.Inputs[2].Name != "mask" || !slices.Equal(m.Inputs[2].Shape, []int64{-1, 2, 1, 3}) {
		t.Error(m, err)
	}
}

func textCall(inBytes bool) *pb.ModelInferRequest {
	r := &pb.ModelInferRequest{ModelName: "text", Inputs: []*pb.ModelInferRequest_InferInputTensor{
		{Name: "flags", Datatype: "BOOL", Shape: []int64{2, 3}, Contents: &pb.InferTensorContents{BoolContents: someFlags}},
		{Name: "ids", Datatype: "INT64", Shape: []int64{2, 3}, Contents: &pb.InferTensorContents{Int64Contents: someIDs}},
		{Name: "mask", Datatype: "INT32", Shape: []int64{2, 2, 1, 3}, Contents: &pb.InferTensorContents{IntContents: someMask}},
		{Name: "scale", Datatype: "FP32", Shape: []int64{2, 2}, Contents: &pb.InferTensorContents{Fp32Contents: someScale}},
	}}
	if inBytes {
		for i, v := range []any{someFlags, someIDs, someMask, someScale} {
			r.Inputs[i].Contents = nil
			r.RawInputContents = append(r.RawInputContents, raw(v))
		}
	}
	return r
}

// TestBytes: an image of bytes comes as UINT8, in each form.
func TestBytes(t *testing.T) {
	g, ran := keep(t)
	for i := range g.models {
		g.models[i].Inputs = InputsOf(hostclient.Description{Input: [3]int{1, 2, 2}, Inputs: []hostclient.InputDescription{
			{Name: "image", Shape: [3]int{1, 2, 2}, Type: "uint8", Integers: &[2]int{0, 255}},
		}})
	}
	want := []float32{0, 1, 128, 255}
	head := `{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,1,2,2],%s}]}`
	for _, c := range []struct{ how, tail string }{{`"data":[[0,1],[128,255]]`, ""}, {`"parameters":{"binary_data_size":4}`, "\x00\x01\x80\xff"}} {
		*ran = nil
		head := fmt.Sprintf(head, c.how)
		if w := ask(g, "POST", "/v2/models/text/infer", head+c.tail, headerLength, size(head)); w.Code != 200 || !slices.Equal(*ran, want) {
			t.Errorf("%s: %d %s, ran %v", c.how, w.Code, w.Body, *ran)
		}
	}
	*ran = nil
	if w := ask(g, "POST", "/v2/models/text/infer", fmt.Sprintf(head, `"data":[0,1,2,256]`)); w.Code != 400 || *ran != nil {
		t.Errorf("256: %d %s", w.Code, w.Body)
	}
	c := dial(t, g)
	for _, contents := range []*pb.InferTensorContents{nil, {UintContents: []uint32{0, 1, 128, 255}}, {UintContents: []uint32{0, 1, 128, 256}}, {IntContents: []int32{0, 1, 128, 255}}} {
		r := &pb.ModelInferRequest{ModelName: "text", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "UINT8", Shape: []int64{1, 4}, Contents: contents}}}
		if contents == nil {
			r.RawInputContents = [][]byte{{0, 1, 128, 255}}
		}
		good := contents == nil || len(contents.UintContents) > 0 && contents.UintContents[3] == 255
		*ran = nil
		if _, err := c.ModelInfer(t.Context(), r); (err == nil) != good || good && !slices.Equal(*ran, want) {
			t.Errorf("%v: %v, ran %v", contents, err, *ran)
		}
	}
}

// TestTextsRefused: what is wrong about inputs is said with their names, and never an id.
func TestTextsRefused(t *testing.T) {
	g, ran := keep(t)
	refused := func(what string, code int, body, want string) {
		t.Helper()
		if code != 400 || !strings.Contains(body, strings.ReplaceAll(want, `"`, `\"`)) || *ran != nil {
			t.Errorf("%s: %d %s, want %s", what, code, body, want)
		}
		if strings.Contains(body, "987") {
			t.Errorf("%s: the answer has the id: %s", what, body)
		}
	}
	head, _ := textRequest("")
	flags := head[strings.Index(head, `,{"name":"flags"`) : len(head)-2]
	for _, c := range []struct{ from, to, want string }{
		{flags, "", `no input "flags": model text takes "ids", "flags", "mask", "scale"`},
		{flags, flags + flags, `two inputs "flags"`},
		{`"name":"mask"`, `"name":"masks"`, `an input "masks": model text takes "ids", "flags", "mask", "scale"`},
		{"INT64", "INT32", `input "ids" of "INT32": want INT64`},
		{"INT32", "INT64", `input "mask" of "INT64": want INT32`},
		{"BOOL", "FP32", `input "flags" of "FP32": want BOOL`},
		{`"INT64","shape":[2,3]`, `"INT64","shape":[6]`, `input "ids" of shape [6]: want [3], with a number of samples before it`},
		{`"INT64","shape":[2,3]`, `"INT64","shape":[1,3]`, `2 samples of input "scale" and 1 of input "ids"`},
		{"[2,2,3]", "[2,3,2]", `input "mask" of shape [2 3 2]: want [2 1 3]`},
		{"[4,0,1,2,3,3]", "[4,0,1,2,3]", `5 elements in input "ids", its shape has 6`},
		{"[4,0,1,2,3,3]", "[4,0,1,2,987,3]", `element 1 of input "ids" of sample 1 is no integer of 0 to 4`},
		{"[4,0,1,2,3,3]", "[4,0,-987,2,3,3]", `element 2 of input "ids" of sample 0 is no integer of 0 to 4`},
		{"[4,0,1,2,3,3]", "[4,0,1,2,3,98700000000000000000000]", `element 2 of input "ids" of sample 1 is no integer of 0 to 4`},
		{"[4,0,1,2,3,3]", "[4,0,1,2,3,1.5987]", `element 2 of input "ids" of sample 1 is no integer of 0 to 4`},
		{"[4,0,1,2,3,3]", `[4,0,1,2,3,"987"]`, `the data of input "ids" holds something other than integers`},
		{"[4,0,1,2,3,3]", `[4,0,1,2,3,true]`, `the data of input "ids" holds something other than integers`},
		{"16777216,0,1,2", "16777217,0,1,2", `element 5 of input "mask" of sample 0 is no integer of -16777216 to 16777216`},
		{"[true,", "[2,", `element 0 of input "flags" of sample 0 is no integer of 0 to 1`},
		{"[true,", "[null,", `the data of input "flags" holds something other than true and false`},
		{"[0.5,", "[true,", `the data of input "scale" holds something other than numbers`},
	} {
		if !strings.Contains(head, c.from) {
			t.Fatalf("no %s in %s", c.from, head)
		}
		w := ask(g, "POST", "/v2/models/text/infer", strings.Replace(head, c.from, c.to, 1))
		refused(c.to, w.Code, w.Body.String(), c.want)
	}
	head, tail := textRequest("ids scale mask flags")
	for _, c := range []struct {
		what, tail, from, to, want string
	}{
		{"few", tail[:len(tail)-1], "", "", `5 bytes of tensors are left for input "flags", binary_data_size is 6`},
		{"many", tail + "1", "", "", `7 bytes of tensors are left for input "flags", binary_data_size is 6`},
		{"flag 2", tail[:len(tail)-1] + "\x02", "", "", `element 2 of input "flags" of sample 1 is no integer of 0 to 1`},
		{"an id", tail[:16] + string(raw(int64(987))) + tail[24:], "", "", `element 0 of input "ids" of sample 0 is no integer of 0 to 4`},
		{"an id of 2^32", tail[:16] + string(raw(int64(1<<32))) + tail[24:], "", "", `element 0 of input "ids" of sample 0 is no integer of 0 to 4`},
		{"infinite", string(raw(float32(math.Inf(1)))) + tail[4:], "", "", `element 0 of input "scale" of sample 0 is not finite`},
		{"bytes", tail, `{"binary_data_size":48}},{"name":"mask","datatype":"INT32","shape":[2,2,3],"parameters":{"binary_data_size":48}`, `{"binary_data_size":47}},{"name":"mask","datatype":"INT32","shape":[2,2,3],"parameters":{"binary_data_size":49}`, `47 bytes of INT64 in input "ids"`},
	} {
		h := strings.Replace(head, c.from, c.to, 1)
		w := ask(g, "POST", "/v2/models/text/infer", h+c.tail, headerLength, size(h))
		refused(c.what, w.Code, w.Body.String(), c.want)
	}
	c := dial(t, g)
	for want, change := range map[string]func(r, bytes *pb.ModelInferRequest){
		`no input "scale"`:          func(r, _ *pb.ModelInferRequest) { r.Inputs = r.Inputs[:3] },
		`no input "flags": model`:   func(_, b *pb.ModelInferRequest) { b.Inputs, b.RawInputContents = b.Inputs[1:], b.RawInputContents[1:] },
		`two inputs "flags"`:        func(r, _ *pb.ModelInferRequest) { r.Inputs = append(r.Inputs, r.Inputs[0]) },
		`an input "x"`:              func(r, _ *pb.ModelInferRequest) { r.Inputs[1].Name = "x" },
		`input "ids" of "INT32"`:    func(r, _ *pb.ModelInferRequest) { r.Inputs[1].Datatype = "INT32" },
		`0 elements in input "ids"`: func(r, _ *pb.ModelInferRequest) { r.Inputs[1].Contents = nil },
		`contents of another type than INT64 in input "ids"`: func(r, _ *pb.ModelInferRequest) {
			r.Inputs[1].Contents = &pb.InferTensorContents{IntContents: make([]int32, 6)}
		},
		`contents of another type than INT32 in input "mask"`: func(r, _ *pb.ModelInferRequest) {
			r.Inputs[2].Contents.Fp64Contents = make([]float64, 12)
		},
		`contents of another type than FP32 in input "scale"`: func(r, _ *pb.ModelInferRequest) {
			r.Inputs[3].Contents.UintContents = make([]uint32, 4)
		},
		`element 2 of input "ids" of sample 1 is no integer of 0 to 4`: func(r, _ *pb.ModelInferRequest) {
			r.Inputs[1].Contents = &pb.InferTensorContents{Int64Contents: []int64{0, 0, 0, 0, 0, 987}}
		},
		`element 3 of input "mask" of sample 0 is no integer`: func(r, _ *pb.ModelInferRequest) {
			r.Inputs[2].Contents.IntContents = slices.Replace(slices.Clone(someMask), 3, 4, math.MinInt32)
		},
		`element 1 of input "ids" of sample 0 is no integer of 0 to 4`: func(_, b *pb.ModelInferRequest) {
			b.RawInputContents[1] = raw([]int64{0, 987, 0, 0, 0, 0})
		},
		`23 bytes of FP32 in input "scale"`: func(_, b *pb.ModelInferRequest) { b.RawInputContents[3] = make([]byte, 23) },
		`3 raw_input_contents for 4 inputs`: func(_, b *pb.ModelInferRequest) { b.RawInputContents = b.RawInputContents[:3] },
		`element 1 of input "scale" of sample 0 is not finite`: func(r, _ *pb.ModelInferRequest) {
			r.Inputs[3].Contents.Fp32Contents = []float32{0, float32(math.NaN()), 0, 0}
		},
	} {
		r, b := textCall(false), textCall(true)
		change(r, b)
		failed := false
		for _, r := range []*pb.ModelInferRequest{r, b} {
			*ran = nil
			if _, err := c.ModelInfer(t.Context(), r); err != nil {
				failed = true
				if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "987") || *ran != nil {
					t.Errorf("%s: %v", want, err)
				}
			}
		}
		if !failed {
			t.Errorf("%s: no error", want)
		}
	}
}

// FuzzIntegers: integers are what strconv takes, within bounds.
func FuzzIntegers(f *testing.F) {
	for _, s := range []string{"0", "4", "5", "-1", "1.0", "1e0", "-0", "9223372036854775808", "true", "null", `"1"`} {
		f.Add(s)
	}
	in := textInputs()[0]
	f.Fuzz(func(t *testing.T, text string) {
		var number json.Number
		if strings.HasPrefix(strings.TrimSpace(text), `"`) || json.Unmarshal([]byte(text), &number) != nil {
			return
		}
		v, err := strconv.ParseInt(number.String(), 10, 64)
		good := err == nil && v >= 0 && v <= 4
		got, err := in.numbers(1, "["+text+"]")
		if (err == nil) != good || good && !slices.Equal(got, []float32{float32(v)}) {
			t.Errorf("%q: %v, %v, want good %v", text, got, err, good)
		}
	})
}
