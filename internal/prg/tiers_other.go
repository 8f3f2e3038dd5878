//go:build !amd64 || purego

package prg

// tiers are the tiers that this machine can run, the fastest first.
var tiers = []tier{generic}
