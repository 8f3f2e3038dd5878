//go:build !linux

package cpu

func adviseLarge([]int8) {}
