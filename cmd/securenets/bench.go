package main

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/bench"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/attacks"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/place"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/serve"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/transform"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure products, passes and whole networks on this machine, and attacks on what is sent",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchKernel(), newBenchHost(), newBenchPlace(), newBenchServe(), newBenchThroughput(), newBenchPaper(), newBenchAttacks(), newBenchCompare())
	return cmd
}

func newBenchKernel() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Measure the cloud's products beside the machine's limits",
		Long: `Kernel measures products modulo M on the CPU, as securenetsd computes them. In the same
rounds it measures the limits of this machine: multiply-adds of bytes (vpdpbusd; with
AVX2, of 16-bit words, vpmaddwd), float64 multiply-adds, and memory reads. It prints what
fraction of the limit the products reach. Without AVX2 there are no limits.

With --backend cuda it measures the first CUDA device: products with operands on the
device, beside cuBLAS' plain products of the same shapes; then products from pinned memory
to pinned memory; then products through a daemon.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	threads := flags.Int("threads", 1, "threads that compute")
	tier := flags.String("tier", "auto", "instruction set: auto, avx512, avx2 or portable")
	backend := flags.String("backend", "cpu", "cpu, or cuda for the first CUDA device")
	path := flags.String("path", "auto", "path of products on the device: auto, fused, int8 or float64")
	daemon := daemonFlag(cmd)
	benchFlags(cmd, func(ctx context.Context, o measure.Options) (result, error) {
		if err := atLeast(cmd, "threads", *threads, 1); err != nil {
			return nil, err
		}
		switch *backend {
		case "cpu":
			if flags.Changed("path") || flags.Changed("daemon") {
				return nil, usagef("bench kernel: --path and --daemon are for --backend cuda")
			}
		case "cuda":
			if flags.Changed("tier") || flags.Changed("threads") {
				return nil, usagef("bench kernel: --tier and --threads are for --backend cpu")
			}
			var err error
			if o.Daemon, err = daemon(); err != nil {
				return nil, err
			}
			return benchDevice(ctx, *path, o)
		default:
			return nil, usagef("bench kernel: --backend is %q, want cpu or cuda", *backend)
		}
		b, err := cpu.Open(cpu.Options{Threads: *threads, Tier: *tier})
		if err != nil {
			return nil, usageError{err}
		}
		r, err := bench.Kernel(ctx, b, *threads, o)
		if err := errors.Join(err, b.Close()); err != nil {
			return nil, err
		}
		return r, nil
	})
	return cmd
}

func benchDevice(ctx context.Context, path string, o measure.Options) (result, error) {
	b, err := cuda.Open(cuda.Options{Path: path, Pinned: bench.DevicePinned})
	if err != nil {
		return nil, err
	}
	r, err := bench.Device(ctx, b, o)
	if err := errors.Join(err, b.Close()); err != nil {
		return nil, err
	}
	return r, nil
}

func newBenchHost() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Measure the host's passes over what it sends and receives",
		Long: `Host measures what the host does online for one layer, pass by pass on one thread:
quantisation, masking with the pad expanded again from its seed, unmasking, the check
of every answer, and conversion back to floats. It needs no daemon: it computes the
answers itself, and does not count that time.`,
		Args: cobra.NoArgs,
	}
	benchFlags(cmd, func(ctx context.Context, o measure.Options) (result, error) { return bench.Host(ctx, o) })
	return cmd
}

func newBenchPlace() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "place",
		Short: "Measure what whole networks cost the host, with all layers sent or some kept",
		Long: `Place runs networks on daemons of its own and measures the host's CPU time an image,
online and for pads: once with every layer sent, and once as "seal --place auto" places
them. In the same rounds it measures plain float32. The host uses one thread for all.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	var o place.Options
	flags.StringArrayVar(&o.Networks, "network", []string{"mnist-cnn", "cifar-cnn"}, "`name` of a network: one of "+strings.Join(models.Names(), ", ")+" (repeatable)")
	daemon := daemonFlag(cmd)
	benchFlags(cmd, func(ctx context.Context, general measure.Options) (result, error) {
		o.Options = general
		for _, s := range transform.Schemes() {
			if s.Weights != transform.WeightNone {
				o.Schemes = append(o.Schemes, s)
			}
		}
		var err error
		if o.Daemon, err = daemon(); err != nil {
			return nil, err
		}
		return place.Run(ctx, o)
	})
	return cmd
}

func newBenchServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Measure a daemon under load, beside the bare kernel",
		Long: `Serve starts a daemon on the CPU and loads it from this process. Some callers wait for each
answer. Others send at random times, at half and at twice what the daemon can do, to one
model or several, all with the same load or one with ten times as much. It prints
throughput and latencies in the columns of perf_analyzer, and

  - what the daemon costs beside the bare kernel, and what batching gains;
  - what is left of goodput under overload, and how fair the shares are;
  - what it costs to bring words to a product and back: by gRPC, by a direct stream on the
    socket, and in shared memory.

Three flags measure something else instead:

  --soak TIME  load a daemon to saturation for that long, and show what its process holds
               before, meanwhile and afterwards
  --idle N     let --callers send requests while N others are connected and do nothing
  --echo       request the layers of mnist-cnn, and compare the daemon with the bare kernel
               and a process that only echoes

--soak and --idle fail if the daemon does not meet their criteria. By default half of the
CPUs compute; the rest are for the load.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	var o serve.Options
	flags.IntVar(&o.Threads, "threads", max(1, runtime.NumCPU()/2), "threads of the daemon that compute")
	flags.IntVar(&o.Callers, "callers", 64, "callers that send requests, each on its own connection")
	flags.IntVar(&o.Rows, "rows", 1, "rows of a request")
	soak := flags.Duration("soak", 0, "load a daemon for a `time` such as 5m, at least 5s")
	echo := flags.Bool("echo", false, "measure requests of mnist-cnn beside an echo")
	idle := flags.Int("idle", 0, "further callers that are connected and send nothing")
	daemon := daemonFlag(cmd)
	benchFlags(cmd, func(ctx context.Context, general measure.Options) (result, error) {
		if cmd.Flags().Changed("soak") && *soak < 5*time.Second {
			return nil, usagef("bench serve: --soak is %v, want 5s or more", *soak)
		}
		loads := 0
		for _, name := range []string{"soak", "idle", "echo"} {
			if cmd.Flags().Changed(name) {
				loads++
			}
		}
		if loads > 1 {
			return nil, usagef("bench serve: --soak, --idle and --echo are loads of their own: give one of them")
		}
		if *soak > 0 && general.Quick {
			return nil, usagef("bench serve: --quick does not shorten --soak: give it another time")
		}
		if *idle < 0 || *idle > 1<<16 {
			return nil, usagef("bench serve: --idle is %d, want 0 to %d", *idle, 1<<16)
		}
		for _, f := range []struct {
			name        string
			value, most int
		}{{"threads", o.Threads, 1024}, {"callers", o.Callers, 4096}, {"rows", o.Rows, 64}} {
			if f.value < 1 || f.value > f.most {
				return nil, usagef("bench serve: --%s is %d, want 1 to %d", f.name, f.value, f.most)
			}
		}
		o.Options = general
		var err error
		if o.Daemon, err = daemon(); err != nil {
			return nil, err
		}
		switch {
		case *echo:
			return serve.Echo(ctx, serve.EchoOptions{Options: o.Options, Threads: o.Threads, Callers: o.Callers, Rows: o.Rows})
		case *soak > 0:
			return serve.Soak(ctx, serve.SoakOptions{Options: o.Options, Threads: o.Threads, Callers: o.Callers, Rows: o.Rows, For: *soak})
		case cmd.Flags().Changed("idle"):
			return serve.Crowd(ctx, serve.CrowdOptions{Options: o.Options, Threads: o.Threads, Active: o.Callers, Idle: *idle, Rows: o.Rows})
		}
		return serve.Run(ctx, o)
	})
	return cmd
}

func newBenchAttacks() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attacks",
		Short: "Measure what attacks recover of trained networks and their inputs",
		Long: `Attacks seals trained networks under every scheme and attacks what a cloud receives:
it recovers weights, matches them to a base model, and looks for inputs. It prints how
often it was right, beside the rate by chance, of an attacker who sees nothing. It needs
no daemon, and its rates do not depend on the machine.`,
		Args: cobra.NoArgs,
	}
	networks := cmd.Flags().StringArray("network", models.Names(), "`name` of a network: one of "+strings.Join(models.Names(), ", ")+" (repeatable)")
	benchFlags(cmd, func(ctx context.Context, o measure.Options) (result, error) { return attacks.Run(ctx, *networks, o) })
	return cmd
}

// result is what a bench found, in its forms. If it has a method Verdict() error, that
// says which criteria were not met.
type result interface {
	Table(io.Writer) error
	CSV(io.Writer) error
}

// benchBudget is the Budget of benchmarks. Tests set it.
var benchBudget time.Duration

// benchFlags gives cmd the flags of every bench, and has it call run.
func benchFlags(cmd *cobra.Command, run func(context.Context, measure.Options) (result, error)) {
	flags := cmd.Flags()
	asJSON := flags.String("json", "", "also write the figures to `file`, as JSON")
	asCSV := flags.String("csv", "", "also write the rows to `file`, as CSV")
	o := measure.Options{Budget: benchBudget}
	flags.BoolVar(&o.Quick, "quick", false, "measure less, which takes seconds")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		bar := newProgress(cmd)
		defer bar.clear()
		o.Progress = func(label string, done, total int) { bar.step(label, int64(done), int64(total)) }
		r, err := run(cmd.Context(), o)
		if err != nil {
			return err
		}
		bar.clear()
		err = errors.Join(r.Table(cmd.OutOrStdout()), writeForms(form{*asJSON, inJSON(r)}, form{*asCSV, r.CSV}))
		if v, ok := r.(interface{ Verdict() error }); ok {
			err = errors.Join(err, v.Verdict())
		}
		return err
	}
}

// form is a file that figures are written to, besides the table.
type form struct {
	path  string // "" for none
	write func(io.Writer) error
}

func inJSON(v any) func(io.Writer) error {
	return func(w io.Writer) error { return render.JSON(w, v) }
}

// writeForms writes all files, those after one that fails too.
func writeForms(forms ...form) (err error) {
	for _, f := range forms {
		if f.path != "" {
			err = errors.Join(err, render.File(f.path, f.write))
		}
	}
	return err
}
