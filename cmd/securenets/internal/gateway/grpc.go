package gateway

import (
	"context"
	"path"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/inference"
)

// Register has s serve the gRPC part of the protocol. ModelInfer is a stream of one message
// each way, which is the same on the wire: so a request is read once it has its place.
func (g *Gateway) Register(s grpc.ServiceRegistrar) {
	desc := pb.GRPCInferenceService_ServiceDesc
	infer := path.Base(pb.GRPCInferenceService_ModelInfer_FullMethodName)
	desc.Methods = slices.DeleteFunc(slices.Clone(desc.Methods), func(m grpc.MethodDesc) bool { return m.MethodName == infer })
	desc.Streams = []grpc.StreamDesc{{StreamName: infer, Handler: func(_ any, stream grpc.ServerStream) error {
		resp, err := g.callInfer(stream)
		if err != nil {
			return err
		}
		return stream.SendMsg(resp)
	}}}
	s.RegisterService(&desc, service{Gateway: g})
}

// service is the gRPC part.
type service struct {
	pb.UnimplementedGRPCInferenceServiceServer
	*Gateway
}

func statusOf(err error) error { return status.Error(codeOf(err), err.Error()) }

func (service) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

func (s service) ServerReady(ctx context.Context, _ *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: s.ready(ctx) == nil}, nil
}

func (s service) ModelReady(ctx context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	m, err := s.find(r.Name, r.Version)
	if err != nil {
		return nil, statusOf(err)
	}
	return &pb.ModelReadyResponse{Ready: m.Ready(ctx) == nil}, nil
}

func (s service) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: serverName, Version: s.o.Version}, nil
}

func (s service) ModelMetadata(_ context.Context, r *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, err := s.find(r.Name, r.Version)
	if err != nil {
		return nil, statusOf(err)
	}
	resp := &pb.ModelMetadataResponse{
		Name: m.Name, Versions: []string{modelVersion}, Platform: platform,
	}
	for _, out := range m.Outputs {
		resp.Outputs = append(resp.Outputs, &pb.ModelMetadataResponse_TensorMetadata{Name: out.Name, Datatype: datatype, Shape: out.shape(-1)})
	}
	for _, in := range m.Inputs {
		resp.Inputs = append(resp.Inputs, &pb.ModelMetadataResponse_TensorMetadata{Name: in.Name, Datatype: in.Datatype, Shape: append([]int64{-1}, in.dims()...)})
	}
	return resp, nil
}

func (g *Gateway) callInfer(stream grpc.ServerStream) (*pb.ModelInferResponse, error) {
	if err := g.enter(stream.Context()); err != nil {
		return nil, statusOf(err)
	}
	defer g.leave()
	r := new(pb.ModelInferRequest)
	read := make(chan error, 1)
	go func() { read <- stream.RecvMsg(r) }() // ends with the call
	select {
	case err := <-read:
		if err != nil {
			return nil, err
		}
	case <-time.After(g.times.read):
		return nil, status.Errorf(codes.DeadlineExceeded, "the request is not sent within %v", g.times.read)
	}
	resp, err := g.modelInfer(stream.Context(), r)
	if err != nil {
		return nil, statusOf(err)
	}
	return resp, nil
}

func (g *Gateway) modelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	m, err := g.find(r.ModelName, r.ModelVersion)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(r.Outputs))
	for i, o := range r.Outputs {
		names[i] = o.Name
		if err := known("output", o.Name, o.Parameters); err != nil {
			return nil, err
		}
	}
	outputs, err := m.requested(names)
	if err != nil {
		return nil, err
	}
	x, n, err := m.called(r)
	if err != nil {
		return nil, err
	}
	y, err := g.infer(ctx, m, x, n)
	if err != nil {
		return nil, err
	}
	resp := &pb.ModelInferResponse{ModelName: m.Name, ModelVersion: modelVersion, Id: r.Id}
	for _, i := range outputs {
		out := &pb.ModelInferResponse_InferOutputTensor{Name: m.Outputs[i].Name, Datatype: datatype, Shape: m.Outputs[i].shape(n)}
		if part := m.part(y, i); len(r.RawInputContents) > 0 {
			resp.RawOutputContents = append(resp.RawOutputContents, bytesOf(part))
		} else {
			out.Contents = &pb.InferTensorContents{Fp32Contents: part}
		}
		resp.Outputs = append(resp.Outputs, out)
	}
	return resp, nil
}

// called returns the samples of a request, and their number.
func (m *Model) called(r *pb.ModelInferRequest) (x []float32, n int, err error) {
	raw := r.RawInputContents
	if len(raw) > 0 && len(raw) != len(r.Inputs) {
		return nil, 0, refusal(codes.InvalidArgument, "%d raw_input_contents for %d inputs", len(raw), len(r.Inputs))
	}
	request := make([]given, len(r.Inputs))
	for i, in := range r.Inputs {
		if err := known("input", in.Name, in.Parameters); err != nil {
			return nil, 0, err
		}
		if len(raw) > 0 && in.Contents != nil {
			return nil, 0, refusal(codes.InvalidArgument, "contents beside raw_input_contents")
		}
		request[i] = given{in.Name, in.Datatype, in.Shape, func(to *Input, _ int) ([]float32, error) {
			if len(raw) > 0 {
				return to.raw(raw[i])
			}
			return to.contents(in.Contents)
		}}
	}
	return m.gather(request)
}
