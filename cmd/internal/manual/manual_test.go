package manual

import "testing"

func TestRoff(t *testing.T) {
	if got, want := roff(".a-b\n.c\\"), `\&.a\-b`+"\n"+`\&.c\e`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
