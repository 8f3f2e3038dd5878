// Package attacks measures what attacks recover of trained networks and of their inputs.
package attacks

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/attack"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// Result is what attacks got right on trained networks.
type Result struct {
	Ring   string `json:"ring"`
	Images int    `json:"images"` // that the networks' inputs are drawn from
	*attack.Report
}

const attackedImages = 32

// Run attacks the weights and inputs of networks, sealed under every scheme, with
// what a cloud receives. Its rates do not depend on the machine.
func Run(ctx context.Context, networks []string, o measure.Options) (*Result, error) {
	images, _, err := models.TestSet()
	if err != nil {
		return nil, err
	}
	a := attack.Options{Ring: ring.Q4(), Schemes: transform.Schemes(), Quick: o.Quick, Progress: o.Progress}
	for _, name := range networks {
		b, err := models.ONNX(name)
		if err != nil {
			return nil, err
		}
		g, err := onnx.Parse(b)
		if err != nil {
			return nil, err
		}
		fit, err := images.Fit(g.Input.C, g.Input.H, g.Input.W)
		if err != nil {
			return nil, err
		}
		x := make([]float32, attackedImages*g.Input.Len())
		graph.CHWToHWC(x, fit.Range(0, attackedImages), attackedImages, g.Input)
		a.Networks = append(a.Networks, attack.Network{Name: name, Graph: g, Images: x, Count: attackedImages})
	}
	report, err := attack.Run(ctx, a)
	if err != nil {
		return nil, err
	}
	return &Result{Ring: a.Ring.String(), Images: attackedImages, Report: report}, nil
}

// Table writes the rates for people.
func (a *Result) Table(w io.Writer) error {
	for _, write := range []func(io.Writer) error{a.weights, a.baseModels, a.inputs} {
		if err := write(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintf(w, `Rates are the percentage that was right. A star means more than chance (in games of two candidates, also less): the
probability of that by chance is below %.0e. A question mark means that not even an all-right result would get a star. No
star is no proof that nothing shows: the least rate above chance that gets one is %s.
Chance is the rate of someone who sees nothing; for ratios it is measured, on the layer's integers in any order. Attackers
have what a cloud has, %s, and what the attack's name says. Inputs are %d test images. A base model is the network's
weights plus normal noise of so many per cent of the layer's root mean square.
`, attack.Alarm, a.games(), a.Ring, a.Images)
	return err
}

// games says which rate of games of two candidates is the least that is told from chance.
func (a *Result) games() string {
	var all []string
	for _, r := range a.Results {
		if !r.Game {
			continue
		}
		if s := fmt.Sprintf("%.1f in %d games of two candidates", 100*r.Detectable, r.Of); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return strings.Join(all, ", and ")
}

// percent returns a rate, with a mark unless it is by chance.
func percent(r attack.Result) string {
	s := strconv.FormatFloat(100*r.Rate, 'f', 1, 64)
	switch r.Verdict {
	case attack.AtChance:
		return s
	case attack.Few:
		return s + "?"
	}
	return s + "*"
}

const baseModel = "base model"

// weights writes a line an attack on weights.
func (a *Result) weights(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprintln(t, "weights of\tlayer\tschemes\tattack\tright\tchance\tof\tms")
	for _, r := range a.Results {
		if r.Target != attack.OnWeights || r.Attack == baseModel {
			continue
		}
		layer, took := "all", "-"
		if r.Layer >= 0 {
			layer = strconv.Itoa(r.Layer)
		}
		scheme := r.Scheme
		if several(scheme) {
			scheme = fmt.Sprintf("%s/%d", scheme, r.Role)
		}
		if r.Seconds > 0 {
			took = strconv.FormatFloat(1000*r.Seconds, 'f', 1, 64)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.1f\t%s %s\t%s\n", r.Network, layer, scheme, r.Attack,
			percent(r), 100*r.Chance, render.Count(r.Of), r.What, took)
	}
	return t.Flush()
}

// baseModels writes a line a layer, with columns for how far off the base model is.
func (a *Result) baseModels(w io.Writer) error {
	var noise []float64
	var lines []string // of network, layer and schemes
	cells := map[string][]string{}
	for _, r := range a.Results {
		if r.Attack != baseModel {
			continue
		}
		if !slices.Contains(noise, r.Noise) {
			noise = append(noise, r.Noise)
		}
		line := fmt.Sprintf("%s\t%d\t%s\t%s\t%.1f", r.Network, r.Layer, r.Scheme, r.What, 100*r.Chance)
		if cells[line] == nil {
			lines = append(lines, line)
		}
		cells[line] = append(cells[line], percent(r))
	}
	t := render.Table(w)
	fmt.Fprint(t, "base model of\tlayer\tschemes\tmatched\tchance")
	for _, n := range noise {
		fmt.Fprintf(t, "\tnoise %.0f %%", 100*n)
	}
	fmt.Fprintln(t)
	for _, line := range lines {
		fmt.Fprintf(t, "%s\t%s\n", line, strings.Join(cells[line], "\t"))
	}
	return t.Flush()
}

// several reports whether text is one scheme, of several roles.
func several(text string) bool {
	scheme, err := transform.ParseScheme(text)
	return err == nil && scheme.Roles() > 1
}

// inputs writes a line an attack on inputs, with columns for the clouds that make it.
func (a *Result) inputs(w io.Writer) error {
	var clouds, lines []string
	cells := map[string]map[string]string{}
	for _, r := range a.Results {
		if r.Target != attack.OnInputs {
			continue
		}
		cloud := r.Scheme
		if several(cloud) {
			cloud = fmt.Sprintf("%s/%d", cloud, r.Role)
		}
		if !slices.Contains(clouds, cloud) {
			clouds = append(clouds, cloud)
		}
		line := fmt.Sprintf("%s\t%s\t%.1f", r.Network, r.Attack, 100*r.Chance)
		if cells[line] == nil {
			lines, cells[line] = append(lines, line), map[string]string{}
		}
		cells[line][cloud] = percent(r)
	}
	t := render.Table(w)
	fmt.Fprintf(t, "inputs of\tattack\tchance\t%s\n", strings.Join(clouds, "\t"))
	for _, line := range lines {
		fmt.Fprint(t, line)
		for _, cloud := range clouds {
			fmt.Fprintf(t, "\t%s", cmp.Or(cells[line][cloud], "-"))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// CSV writes the rows.
func (a *Result) CSV(w io.Writer) error {
	rows := make([]row, len(a.Results))
	for i, r := range a.Results {
		rows[i] = row(r)
	}
	return render.CSV(w, []string{
		"target", "attack", "network", "layer", "op", "scheme", "role", "noise", "what", "right", "of", "rate", "chance", "game", "detectable", "verdict", "seconds",
	}, rows)
}

type row attack.Result

// Record is the row in CSV.
func (r row) Record() []string {
	return []string{
		string(r.Target), r.Attack, r.Network, strconv.Itoa(r.Layer), r.Op, r.Scheme, strconv.Itoa(r.Role), render.Decimal(r.Noise), r.What,
		strconv.Itoa(r.Right), strconv.Itoa(r.Of), render.Decimal(r.Rate), render.Decimal(r.Chance),
		strconv.FormatBool(r.Game), render.Decimal(r.Detectable), string(r.Verdict), render.Decimal(r.Seconds),
	}
}
