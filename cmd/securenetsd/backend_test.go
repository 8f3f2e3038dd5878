package main

import (
	"reflect"
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cuda"
)

var _ kernels.Reporter = withProcessor{}

func TestReport(t *testing.T) {
	got := report([]cuda.Device{
		{Ordinal: 2, UUID: "GPU-1", State: cuda.Ready, Memory: 9, Budget: 8, Weights: 7, Work: 6, Evicted: 5,
			Figures: &cuda.Figures{Utilisation: 25, UsedBytes: 4, PowerWatts: 3.5, Celsius: 2}},
		{Ordinal: 3, State: cuda.Lost},
	})
	want := []kernels.Device{
		{Name: "cuda2", ID: "GPU-1", Ready: true, Memory: 9, Budget: 8, Weights: 7, Work: 6, Evicted: 5,
			Usage: &kernels.Usage{Utilisation: 0.25, UsedBytes: 4, PowerWatts: 3.5, Celsius: 2}},
		{Name: "cuda3"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
