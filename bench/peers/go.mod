module github.com/securenets/securenets/bench/peers

go 1.26.0

require (
	github.com/securenets/securenets v0.0.0
	golang.org/x/sys v0.48.0
	gonum.org/v1/gonum v0.17.0
)

require google.golang.org/protobuf v1.36.12 // indirect

replace github.com/securenets/securenets => ../..
