module github.com/liboptimize/liboptimize/examples/go

go 1.23

require github.com/liboptimize/liboptimize/bindings/go v0.0.0

replace github.com/liboptimize/liboptimize/bindings/go => ../../bindings/go
