package main

import "golang.org/x/sys/unix"

// The calls that get and set how a terminal behaves.
const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)
