//go:build !amd64 || purego

package cpu

// tiers are those that this processor and its system can run, the fastest first.
var tiers = []tier{portable}
