//go:build !amd64 || purego

package graph

var tiers = []vector{scalar}
