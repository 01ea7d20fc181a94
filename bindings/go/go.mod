module github.com/liboptimize/liboptimize/bindings/go

go 1.23
