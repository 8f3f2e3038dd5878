package model

// step is called after each step whose effect a restart could see. Tests end the process
// there.
var step = func(string) {}
