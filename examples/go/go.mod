module optimize-example

go 1.19
