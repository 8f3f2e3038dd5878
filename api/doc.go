// Package api holds the definitions of the protocol between host and cloud, and of
// the one that the host's gateway speaks, and the program that generates their Go code.
package api

//go:generate go run ./generate
