// Package api holds the protocol's definition and the program that generates
// its Go code.
package api

//go:generate go run ./generate
