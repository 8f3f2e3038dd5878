package cpu

// twin is the vectorUnit that others are compared with, byte for byte.
var twin = vectorUnit{name: "twin", split: splitTwin, multiply: multiplyTwin}

func splitTwin(dst []uint8, plane int, src []uint32, c []splitting) {
	for i, c := range c {
		for j, a := range src {
			dst[i*plane+j] = splitOne(int32(c.bias)+dotBytes(a, c.powers), c)
		}
	}
}

// splitOne reduces v = 510·p + Σ_j (byte j)·(256^j mod p, centred).
func splitOne(v int32, c splitting) uint8 {
	q := int32(float32(v) * c.inverse)
	return uint8(v + q*int32(int16(c.minus)))
}

// dotBytes returns Σ_j (byte j of a)·(byte j of b), those of b signed.
func dotBytes(a, b uint32) (sum int32) {
	for range 4 {
		sum += int32(uint8(a)) * int32(int8(b))
		a, b = a>>8, b>>8
	}
	return sum
}

func multiplyTwin(t *tile) {
	for prime := range t.primes {
		for i := range t.rows {
			for j := range t.lanes {
				sum := uint32(1 << 31)
				for r, run := range t.runs {
					x := t.x[prime*t.plane+i*t.stride+run:][:4*t.steps]
					w := t.w[prime*t.image+r*t.steps*t.lanes*4+4*j:]
					for k, a := range x {
						sum += uint32(int32(w[k/4*t.lanes*4+k%4]) * int32(a))
					}
				}
				*t.sum(prime, i, j) = sum
			}
		}
	}
	if t.crt == nil {
		return
	}
	m := int64(t.crt.modulus)
	for i := range t.words {
		for j := range t.lanes {
			if t.mask>>j&1 == 0 {
				continue
			}
			var y int64 // |c_i| <= 511·p_i, so |y| < 4·511·M < 2^43
			for prime, powers := range t.crt.powers {
				c := t.crt.bias[prime] + dotBytes(*t.sum(prime-t.prime, i, j), powers)
				y += int64(c) * int64(t.crt.rest[prime])
			}
			t.y[i*t.yStride/4+j] = uint32((y%m + m) % m)
		}
	}
}
