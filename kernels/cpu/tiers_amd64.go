//go:build !purego

package cpu

import xcpu "golang.org/x/sys/cpu"

// tiers are the tiers that this machine can run, the fastest first. x/sys/cpu reports an
// instruction set only if the system saves its registers, too.
var tiers = func() (t []tier) {
	for _, u := range vectorUnits() {
		t = append(t, tier{u.name, loadResidues(u)})
	}
	return append(t, portable)
}()

// vectorUnits returns the vector units that this machine has, the fastest first.
func vectorUnits() (u []vectorUnit) {
	x := &xcpu.X86
	if x.HasAVX512F && x.HasAVX512VNNI {
		u = append(u, avx512)
	}
	if x.HasAVX2 && x.HasFMA {
		u = append(u, avx2)
	}
	return u
}
