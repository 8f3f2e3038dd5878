package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// headerLength is the header that says how many bytes of a body are JSON; what follows are
// binary tensors.
const headerLength = "Inference-Header-Content-Length"

// Handler returns the REST part of the protocol.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				writeError(w, err)
			}
		})
		allow := strings.Replace(method, http.MethodGet, "GET, HEAD", 1) // which the mux takes for GET
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			_ = writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": fmt.Sprintf("method %.8s, want %s", r.Method, method)})
		})
	}
	handle("GET", "/v2/health/live", func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	})
	handle("GET", "/v2/health/ready", func(w http.ResponseWriter, r *http.Request) error {
		return writeReady(w, g.ready(r.Context()), map[string]any{})
	})
	handle("GET", "/v2", func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]any{"name": serverName, "version": g.o.Version, "extensions": []string{"binary_tensor_data"}})
	})
	for _, at := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		handle("GET", at, func(w http.ResponseWriter, r *http.Request) error {
			m, err := g.find(r.PathValue("model"), r.PathValue("version"))
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, map[string]any{
				"name": m.Name, "versions": []string{modelVersion}, "platform": platform,
				"inputs":  m.inputTensors(),
				"outputs": m.outputTensors(),
			})
		})
		handle("GET", at+"/ready", func(w http.ResponseWriter, r *http.Request) error {
			m, err := g.find(r.PathValue("model"), r.PathValue("version"))
			if err != nil {
				return err
			}
			return writeReady(w, m.Ready(r.Context()), map[string]any{"name": m.Name})
		})
		handle("POST", at+"/infer", g.serveInfer)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, refusal(codes.NotFound, "no endpoint %.8s %.128s", r.Method, r.URL.Path))
	})
	others := http.NewCrossOriginProtection()
	others.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, refusal(codes.PermissionDenied, "a request of a page from elsewhere, %.64q", r.Header.Get("Origin")))
	}))
	return others.Handler(local(mux))
}

// local refuses requests that came by TCP for the name of another machine: a web page may
// have its own name stand for this one, to reach what listens here.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && at != nil && !loopback(r.Host) {
			writeError(w, refusal(codes.PermissionDenied, "a request for host %.64q, want localhost", r.Host))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// tensor is one as JSON has it.
type tensor struct {
	Name       string                     `json:"name"`
	Datatype   string                     `json:"datatype"`
	Shape      []int64                    `json:"shape"`
	Parameters map[string]json.RawMessage `json:"parameters,omitempty"`
	Data       json.RawMessage            `json:"data,omitempty"`
}

// inferRequest is the JSON of a request; of its parameters only binaryOutput counts.
type inferRequest struct {
	ID         string                     `json:"id"`
	Parameters map[string]json.RawMessage `json:"parameters"`
	Inputs     []tensor                   `json:"inputs"`
	Outputs    []struct {
		Name       string                     `json:"name"`
		Parameters map[string]json.RawMessage `json:"parameters"`
	} `json:"outputs"`
}

type inferResponse struct {
	ModelName    string   `json:"model_name"`
	ModelVersion string   `json:"model_version"`
	ID           string   `json:"id,omitempty"`
	Outputs      []tensor `json:"outputs"`
}

// Parameters of the extension for binary tensors.
const (
	binarySize   = "binary_data_size"   // of a tensor: its bytes, behind the JSON
	binaryData   = "binary_data"        // of an output: that it be sent so
	binaryOutput = "binary_data_output" // of a request: that all outputs be
)

func (g *Gateway) serveInfer(w http.ResponseWriter, r *http.Request) error {
	text, tail, err := g.restInfer(w, r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.times.write))
	if err != nil {
		return err
	}
	if tail == nil {
		return write(w, http.StatusOK, "application/json", text)
	}
	w.Header().Set(headerLength, strconv.Itoa(len(text)))
	return write(w, http.StatusOK, "application/octet-stream", text, tail)
}

// restInfer returns the JSON of a request's answer, and the bytes of its tensors where they
// are not in it. It reads the request once it is in work, so that others wait in no memory.
func (g *Gateway) restInfer(w http.ResponseWriter, r *http.Request) (text, tail []byte, err error) {
	m, err := g.find(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, nil, err
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, nil, refusal(codes.Unimplemented, "a body with encoding %.32q, want none", e)
	}
	// Time begins once it has a place, and again with its answer.
	on := http.NewResponseController(w)
	_, _ = on.SetReadDeadline(time.Time{}), on.SetWriteDeadline(time.Time{})
	err = g.enter(r.Context())
	_ = on.SetReadDeadline(time.Now().Add(g.times.read)) // until its body is read
	if err != nil {
		return nil, nil, err
	}
	defer g.leave()
	req, rest, err := g.readRequest(w, r)
	if err != nil {
		return nil, nil, err
	}
	x, n, err := m.input(req, rest)
	if err != nil {
		return nil, nil, err
	}
	asked, err := m.output(req)
	if err != nil {
		return nil, nil, err
	}
	y, err := g.infer(r.Context(), m, x, n)
	if err != nil {
		return nil, nil, err
	}
	var outputs []tensor
	for _, a := range asked {
		out, part := tensor{Name: m.Outputs[a.output].Name, Datatype: datatype, Shape: m.Outputs[a.output].shape(n)}, m.part(y, a.output)
		if a.binary {
			b := bytesOf(part)
			tail = append(tail, b...)
			out.Parameters = map[string]json.RawMessage{binarySize: json.RawMessage(strconv.Itoa(len(b)))}
		} else if out.Data, err = json.Marshal(part); err != nil {
			return nil, nil, err
		}
		outputs = append(outputs, out)
	}
	text, err = json.Marshal(inferResponse{m.Name, modelVersion, req.ID, outputs})
	return text, tail, err
}

// readRequest reads a request, and the bytes of tensors that follow its JSON.
func (g *Gateway) readRequest(w http.ResponseWriter, r *http.Request) (*inferRequest, []byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.o.MaxBytes))
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return nil, nil, err
		}
		return nil, nil, refusal(codes.InvalidArgument, "the request breaks off: %v", err)
	}
	n := uint64(len(body))
	if h := r.Header.Get(headerLength); h != "" {
		if n, err = strconv.ParseUint(h, 10, 63); err != nil || n > uint64(len(body)) {
			return nil, nil, refusal(codes.InvalidArgument, "%s is %.32q in a request of %d bytes", headerLength, h, len(body))
		}
	}
	req := new(inferRequest)
	if err := json.Unmarshal(body[:n], req); err != nil {
		return nil, nil, refusal(codes.InvalidArgument, "the request is not what the protocol has: %v", err)
	}
	return req, body[n:], nil
}

func (m *Model) inputTensors() (all []tensor) {
	for _, in := range m.Inputs {
		all = append(all, tensor{Name: in.Name, Datatype: in.Datatype, Shape: append([]int64{-1}, in.dims()...)})
	}
	return all
}

func (m *Model) outputTensors() (all []tensor) {
	for _, out := range m.Outputs {
		all = append(all, tensor{Name: out.Name, Datatype: datatype, Shape: out.shape(-1)})
	}
	return all
}

// input returns the samples of a request, and their number. Tail is what follows its JSON: the
// bytes of those inputs that have a size for them, in their order.
func (m *Model) input(req *inferRequest, tail []byte) (x []float32, n int, err error) {
	request := make([]given, len(req.Inputs))
	left := uint64(len(tail))
	for i, in := range req.Inputs {
		if err := known("input", in.Name, in.Parameters, binarySize); err != nil {
			return nil, 0, err
		}
		size, binary, err := parameter[uint64](in.Parameters, binarySize)
		switch {
		case err != nil:
			return nil, 0, err
		case binary && in.Data != nil:
			return nil, 0, refusal(codes.InvalidArgument, "data beside %s", binarySize)
		case size > left || i == len(req.Inputs)-1 && size != left: // 0 where there is none
			return nil, 0, refusal(codes.InvalidArgument, "%d bytes of tensors are left for input %.64q, %s is %d", left, in.Name, binarySize, size)
		}
		own := tail[:size]
		tail, left = tail[size:], left-size
		request[i] = given{in.Name, in.Datatype, in.Shape, func(to *Input, n int) ([]float32, error) {
			if binary {
				return to.raw(own)
			}
			return to.numbers(n, string(in.Data))
		}}
	}
	return m.gather(request)
}

// asked is an output that a request asks for.
type asked struct {
	output int
	binary bool
}

// output returns the outputs that a request asks for.
func (m *Model) output(req *inferRequest) ([]asked, error) {
	binary, _, err := parameter[bool](req.Parameters, binaryOutput)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(req.Outputs))
	for i, o := range req.Outputs {
		names[i] = o.Name
		if err := known("output", o.Name, o.Parameters, binaryData); err != nil {
			return nil, err
		}
	}
	which, err := m.requested(names)
	if err != nil {
		return nil, err
	}
	all := make([]asked, len(which))
	for i, output := range which {
		all[i] = asked{output, binary}
		if len(names) == 0 {
			continue
		}
		if own, ok, err := parameter[bool](req.Outputs[i].Parameters, binaryData); err != nil {
			return nil, err
		} else if ok {
			all[i].binary = own
		}
	}
	return all, nil
}

// parameter returns the value of a parameter, and whether there is one.
func parameter[T any](all map[string]json.RawMessage, name string) (value T, ok bool, err error) {
	text, ok := all[name]
	if ok && json.Unmarshal(text, &value) != nil {
		err = refusal(codes.InvalidArgument, "parameter %q is %.32s", name, text)
	}
	return value, ok, err
}

func writeReady(w http.ResponseWriter, err error, to map[string]any) error {
	to["ready"] = err == nil
	if err != nil {
		to["error"] = err.Error()
		return writeJSON(w, http.StatusServiceUnavailable, to)
	}
	return writeJSON(w, http.StatusOK, to)
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return write(w, status, "application/json", b)
}

// write writes an answer. That its caller is gone is nobody's business.
func write(w http.ResponseWriter, status int, kind string, body ...[]byte) error {
	w.Header().Set("Content-Type", kind)
	length := 0
	for _, part := range body {
		length += len(part)
	}
	w.Header().Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(status)
	for _, part := range body {
		_, _ = w.Write(part)
	}
	return nil
}

// clientClosed is the status of requests that their caller gave up; nobody reads it.
const clientClosed = 499

func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch codeOf(err) {
	case codes.InvalidArgument:
		status = http.StatusBadRequest
	case codes.NotFound:
		status = http.StatusNotFound
	case codes.PermissionDenied:
		status = http.StatusForbidden
	case codes.Unimplemented:
		status = http.StatusUnsupportedMediaType
	case codes.DataLoss:
		status = http.StatusBadGateway
	case codes.ResourceExhausted, codes.Unavailable:
		status = http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		status = http.StatusGatewayTimeout
	case codes.Canceled:
		status = clientClosed
	}
	text := err.Error()
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		status, text = http.StatusRequestEntityTooLarge, fmt.Sprintf("more than the %d bytes that a request may have", tooLarge.Limit)
	}
	_ = writeJSON(w, status, map[string]string{"error": text})
}
