// Package onnx reads the networks that this project runs from ONNX files, and
// writes them. It treats its input as hostile: memory is bounded by the file's
// size, and external data, cycles, overflows and weights that are not finite
// are refused with typed errors.
package onnx

import (
	"errors"

	"github.com/securenets/securenets/internal/graph"
)

// Parse reads an ONNX model (the bytes of a .onnx file).
func Parse(b []byte) (*graph.Graph, error) { return nil, errors.New("onnx: not written yet") }

// Marshal writes g as an ONNX model that Parse reads back to an equal graph.
func Marshal(g *graph.Graph) ([]byte, error) { return nil, errors.New("onnx: not written yet") }
