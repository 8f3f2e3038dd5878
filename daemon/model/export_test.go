package model

// NeedOf is needOf.
var NeedOf = needOf

// SetStep sets the function that is called after each step.
func SetStep(f func(string)) { step = f }
