//go:build !amd64 || purego

package roofline

const avx512, avx2 = false, false

func vnni(int) {}

func words(int) {}

func wide(int) {}

func fma512(int) {}

func fma256(int) {}

func read512(*byte, int) {}

func read256(*byte, int) {}
