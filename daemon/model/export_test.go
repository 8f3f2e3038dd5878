package model

// NeedOf is needOf.
var NeedOf = needOf

// SetStep sets what is told of steps.
func SetStep(f func(string)) { step = f }
