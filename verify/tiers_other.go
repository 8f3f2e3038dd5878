//go:build !amd64 || purego

package verify

// tiers are those that this machine can run, the fastest first.
var tiers = []tier{generic}
