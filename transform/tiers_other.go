//go:build !amd64 || purego

package transform

// tiers are those that this machine can run, the fastest first.
var tiers = []passes{generic}
