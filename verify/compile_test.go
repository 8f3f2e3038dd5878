package verify_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// TestUncheckedDoesNotCompile type-checks uses of a Candidate in another package: only Key.Open
// gives out its products, and nothing else compiles.
func TestUncheckedDoesNotCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("the same in every build")
	}
	fset := token.NewFileSet()
	// One importer, so that the package is read once.
	from := importer.ForCompiler(fset, "source", nil)
	compile := func(body string) error {
		src := `package client

import "github.com/securenets/securenets/verify"

func use(k *verify.Key, c verify.Candidate, x []int32) (y []int32, err error) {
	` + body + `
	return
}
`
		file, err := parser.ParseFile(fset, "client.go", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&types.Config{Importer: from}).Check("client", fset, []*ast.File{file}, nil)
		return err
	}
	if err := compile("y, err = k.Open(c, x)"); err != nil {
		t.Fatalf("the checked use does not compile: %v", err)
	}
	for _, c := range []struct{ body, why string }{
		{"c.read(y, y, 0, 0)", "unexported field read"},
		{"y = c", "cannot use c"},
		{"y = []int32(c)", "cannot convert c"},
		{"y = c[:]", "cannot slice c"},
		{"y = append(y, c[0])", "cannot index c"},
		{"for i := range c { y = append(y, int32(i)) }", "cannot range over c"},
		{"y = struct{ y []int32; n int }(c).y", "cannot convert c"},
		{"y = c.Unchecked()", "c.Unchecked undefined"},
		{"k.s[0] = 0", "unexported field s"},
		{"k = &verify.Key{s: nil}", "unexported field s"},
	} {
		if err := compile(c.body); err == nil {
			t.Errorf("%s compiles", c.body)
		} else if !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: refused for another reason: %v", c.body, err)
		}
	}
}
