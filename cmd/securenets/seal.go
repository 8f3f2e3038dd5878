package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/kernels/cpu"
)

func newSeal() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seal MODEL.onnx -o DIR",
		Short: "Mask a network's weights, once",
		Long: `Seal reads an ONNX model and writes DIR, which must not hold a secret yet:

  DIR/secret.age                masks, check vectors, biases and structure, encrypted:
                                keep it, and share it with nobody
  DIR/role-0.safetensors        the masked weights for the cloud, for "push"
  DIR/role-N-of-M.safetensors   under a scheme of M roles, those for the cloud of role N

Under lagrange any two of the role files are the weights, and they are not encrypted:
give each to its cloud only, and protect DIR as you protect MODEL.onnx.

The secret is encrypted to the recipients (-r) and the identity file's owner (-i),
or else to a passphrase, which is asked for at the terminal.

With --place auto, seal measures on this machine what each linear layer costs the host
online, both sent to the cloud and computed here. It keeps the layers that cost less here:
their weights stay in the secret, and no cloud receives anything of them. Results are the
same bit for bit. "inspect" shows the figures. Seal on the machine that will run "infer",
and give --link for how it will reach the cloud. Shared memory costs the host least, and
a daemon on the same machine accepts it by default; TLS costs most.`,
		Args: cobra.ExactArgs(1),
	}
	out := cmd.Flags().StringP("out", "o", "", "`folder` to write")
	choose := sealFlags(cmd)
	read := modelFlags(cmd)
	calibrate := calibrateFlag(cmd)
	keys := cmd.Flags().StringArrayP("recipient", "r", nil, "age public `key` that can open the secret (repeatable)")
	identity := identityFlag(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *out == "" {
			return usagef("seal: -o DIR is missing")
		}
		o, err := choose.options()
		if err != nil {
			return err
		}
		if err := hostclient.Vacant(*out); err != nil {
			return err
		}
		model, err := openModel(args[0], read)
		if err != nil {
			return err
		}
		defer model.Close()
		bar := newProgress(cmd)
		defer bar.clear()
		o.Multiplier = cpu.New(cpu.Options{})
		o.Progress = func(done, total int) { bar.step("sealing layers", int64(done), int64(total)) }
		if o.Calibration, err = readCalibration(*calibrate, model); err != nil {
			return err
		}
		to, err := recipients(cmd.Context(), *keys, *identity)
		if err != nil {
			return err
		}
		var secret *hostclient.Secret
		var files []hostclient.SealedFile
		err = peer.WithEcho(cmd.Context(), o, func(o hostclient.SealOptions) error {
			secret, files, err = model.SealDir(cmd.Context(), *out, o, to...)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		bar.clear()
		return printSealed(cmd, *out, secret.Describe(), files, *asJSON)
	}
	return cmd
}

// sealedRole is what is told of one role's file.
type sealedRole struct {
	Role   int    `json:"role"`
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
}

// modelFlags gives cmd flags for how a model is read.
func modelFlags(cmd *cobra.Command) *hostclient.ModelOptions {
	o := new(hostclient.ModelOptions)
	cmd.Flags().StringToIntVar(&o.Sizes, "size", nil, "size of a dimension that the model names and has none for, such as a sequence length, as `NAME=N` (repeatable)")
	cmd.Flags().Lookup("size").DefValue = "" // which help would show as []
	cmd.Flags().StringArrayVar(&o.Outputs, "output", nil, "`name` of an output that is wanted; without it, all of floats are (repeatable)")
	return o
}

// calibrateFlag gives cmd --calibrate.
func calibrateFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("calibrate", "", "`file` of samples (npy, npz, IDX, CIFAR-10, PNG) to choose each layer's bits from")
}

// readCalibration reads the samples of --calibrate, if it is given.
func readCalibration(file string, model *hostclient.ModelFile) ([]float32, error) {
	if file == "" {
		return nil, nil
	}
	images, err := readSamples(file, taken{model.Input(), model.Inputs()})
	if err != nil {
		return nil, err
	}
	return images.Data, nil
}

// openModel opens a model's file, whose errors name it once.
func openModel(path string, o *hostclient.ModelOptions) (*hostclient.ModelFile, error) {
	m, err := hostclient.OpenModelWith(path, *o)
	var at *fs.PathError
	if err != nil && !errors.As(err, &at) {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return m, err
}

func printSealed(cmd *cobra.Command, dir string, d hostclient.Description, files []hostclient.SealedFile, asJSON bool) error {
	w := cmd.OutOrStdout()
	var roles []sealedRole
	for _, f := range files {
		roles = append(roles, sealedRole{f.Role, f.Digest.String(), f.Size})
	}
	if asJSON {
		return render.JSON(w, struct {
			Dir string `json:"dir"`
			hostclient.Description
			Roles []sealedRole `json:"roles"`
		}{dir, d, roles})
	}
	fmt.Fprintf(w, "sealed to %s with %s in %s\n\n", dir, d.Scheme, d.Ring)
	render.Guarantee(w, d.Guarantee)
	fmt.Fprintln(w)
	printLayers(w, d)
	printPlacement(w, d)
	fmt.Fprintln(w)
	for _, r := range roles {
		fmt.Fprintf(w, "role %d: %s bytes, %s\n", r.Role, render.Count(r.Bytes), r.Digest)
	}
	if len(roles) == 0 {
		fmt.Fprintln(w, nothingSent)
	}
	return nil
}
