//go:build !amd64 || purego

package roofline

const available = false

func vnni(int) {}

func fma(int) {}

func read(*byte, int) {}
