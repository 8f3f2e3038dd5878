package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/kernels/cpu"
)

// checked is what check finds.
type checked struct {
	Model       string   `json:"model"`
	Unsupported []string `json:"unsupported,omitempty"` // then there is nothing else
	*hostclient.Description
	*comparison
	Comparisons []compared `json:"comparisons,omitempty"` // of several outputs, in their order
}

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check MODEL.onnx",
		Short: "Show what would run where, before anything is sealed",
		Long: `Check reads an ONNX model and shows which operators the cloud would evaluate and which
the host, with their shapes, multiply-adds and bytes; or else everything in the model that
is not supported.

With --data it also runs samples, as "infer" reads them, through the quantised network, on
this machine and in the clear; sealing and masking would not change a bit of the results.
It compares them with those of float32: how far they are apart, and how often the same
element is the largest. That is of all elements of an output; of those of each position
where it is a map (along its channels) or a sequence (along its last axis). Of several
outputs it compares each. With --labels it compares the accuracy of both, of the output
that has one position a label. A negative label, or 255 where there are fewer classes, stands
for none: it is left out, and the report says how many were. Give --ring and --calibrate as
for "seal".

With --place auto it measures what "seal" would with that flag, for a cloud reached by
--link, and shows which layers would be kept here.`,
		Args: cobra.ExactArgs(1),
	}
	choose := sealFlags(cmd)
	read := modelFlags(cmd)
	data := cmd.Flags().String("data", "", "`file` of samples (npy, npz, IDX, CIFAR-10, PNG)")
	labels := cmd.Flags().String("labels", "", "`file` of their labels (IDX, CIFAR-10, or integers as npy), one a sample or a position")
	calibrate := calibrateFlag(cmd)
	samples := cmd.Flags().Int("samples", 256, "the most samples of --data to run")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := choose.options()
		if err != nil {
			return err
		}
		o.Multiplier = cpu.New(cpu.Options{})
		if *data == "" && (*labels != "" || *calibrate != "" || cmd.Flags().Changed("samples")) {
			return usagef("check: --labels, --calibrate and --samples need --data")
		}
		if err := atLeast(cmd, "samples", *samples, 1); err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		result := checked{Model: args[0]}
		model, err := openModel(args[0], read)
		var unsupported *onnx.UnsupportedError
		if errors.As(err, &unsupported) && *asJSON {
			result.Unsupported = unsupported.Ops
			if err := render.JSON(w, result); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		defer model.Close()
		if o.Calibration, err = readCalibration(*calibrate, model); err != nil {
			return err
		}
		d, err := model.Preview(o.Scheme, o.Ring)
		if err == nil && o.Place == hostclient.PlaceAuto {
			err = peer.WithEcho(cmd.Context(), o, func(o hostclient.SealOptions) error {
				d, err = model.Place(cmd.Context(), o)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		result.Description = &d
		if *data != "" {
			bar := newProgress(cmd)
			defer bar.clear()
			c := comparing{model: model, options: o, takes: takenBy(d), data: *data, labels: *labels, most: *samples, bar: bar}
			if result.comparison, result.Comparisons, err = c.run(cmd.Context(), d); err != nil {
				return err
			}
			bar.clear()
		}
		if *asJSON {
			return render.JSON(w, result)
		}
		fmt.Fprintf(w, "%s with %s in %s\n\n", args[0], d.Scheme, d.Ring)
		printLayers(w, d)
		printPlacement(w, d)
		if *data != "" {
			fmt.Fprintln(w)
			printComparison(w, d, result.comparison, result.Comparisons)
		}
		return nil
	}
	return cmd
}
