package demo

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/transform"
)

// The files of Options.OutDir.
const (
	viewFile   = "cloud-view.png"
	resultFile = "demo.json"
)

// promise says what is about to happen and what the scheme guarantees.
func (r *run) promise(context.Context) error {
	fmt.Fprintf(r.Out, "%s on %s test images of Fashion-MNIST, %s in %s\n\nThis scheme promises, and no more:\n\n",
		r.Network, render.Count(r.Samples), r.Scheme, r.Ring)
	render.Guarantee(r.Out, r.Scheme.Guarantee())
	fmt.Fprintln(r.Out)
	return nil
}

// padded reports whether there is work beforehand.
func (r *run) padded() bool { return r.Scheme.Inputs == transform.InputPad && r.result.LayersSent > 0 }

// report writes the figures of both inferences.
func (r *run) report(context.Context) error {
	padded := r.padded()
	percent := func(f float64) string { return fmt.Sprintf("%.2f %%", 100*f) }
	micros := func(ns int64) string { return fmt.Sprintf("%.1f us", float64(ns)/float64(time.Microsecond)) }
	t := render.Table(r.Out)
	row := func(what, private, local string) { fmt.Fprintf(t, "%s\t%s\t%s\n", what, private, local) }
	row("", "private", "local float32")
	row("accuracy", percent(r.result.AccuracyPrivate), percent(r.result.AccuracyFloat))
	row("same class as local float32", percent(r.result.Agreement), "")
	row("products checked", render.Count(r.result.Checked), "")
	row("products rejected", render.Count(r.result.Rejected), "")
	total := r.result.HostOnlineNS + r.result.HostOfflineNS
	row("host CPU time per image, total", micros(total), micros(r.result.LocalNS))
	if padded {
		row("  online", micros(r.result.HostOnlineNS), "")
		row("  offline (pads)", micros(r.result.HostOfflineNS), "")
	}
	row("bytes up per image", render.Count(r.result.BytesUp), "")
	row("bytes down per image", render.Count(r.result.BytesDown), "")
	row("images per second, online", render.Count(int64(r.result.ImagesPerS)), "")
	if err := t.Flush(); err != nil {
		return err
	}
	local := float64(r.result.LocalNS)
	fmt.Fprintf(r.Out, "\nLocal is gorgonia float32 on gonum BLAS, on this machine, %d threads, batch %d.\nThe host takes %.2f of local's CPU time in total",
		runtime.GOMAXPROCS(0), r.Batch, float64(total)/local)
	if padded {
		fmt.Fprintf(r.Out, ", and %.2f online, once pads are made", float64(r.result.HostOnlineNS)/local)
	}
	fmt.Fprint(r.Out, ".\n\n")
	return nil
}

// write leaves the figures in demo.json and the picture in cloud-view.png: last of all, so
// that a run that fails leaves those of an earlier one.
func (r *run) write(context.Context) error {
	path := filepath.Join(r.OutDir, resultFile)
	if err := render.File(path, func(w io.Writer) error { return render.JSON(w, r.result) }); err != nil {
		return err
	}
	if r.view != nil {
		seen := filepath.Join(r.OutDir, viewFile)
		if err := writePNG(seen, r.view); err != nil {
			return err
		}
		fmt.Fprintf(r.Out, "What the cloud saw: %s. ", seen)
	}
	fmt.Fprintf(r.Out, "All figures: %s.\n", path)
	if r.result.TamperCaught < r.result.TamperTried {
		return fmt.Errorf("%w: %d of %d", ErrMissed, r.result.TamperTried-r.result.TamperCaught, r.result.TamperTried)
	}
	return nil
}
