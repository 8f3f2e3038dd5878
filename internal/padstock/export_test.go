package padstock

// WithIDs returns c for stocks of so many ids.
func (c Config) WithIDs(n uint64) Config {
	c.ids = n
	return c
}
