//! The program in Go, with a `go.mod` that requires the module in `bindings/go`.

use super::{Input, list, quoted};
use crate::onnx::dtype::DataType;
use std::fmt::Write;

/// Returns the files of a program that opens the package at `path` and runs it, each with its name and content.
pub fn program(path: &str, inputs: &[Input]) -> Vec<(&'static str, String)> {
    let mut make = String::new();
    for (index, input) in inputs.iter().enumerate() {
        let (element, one) = match input.dtype {
            DataType::Float32 => ("float32", "1"),
            DataType::Int64 => ("int64", "1"),
            DataType::Int32 => ("int32", "1"),
            _ => ("bool", "true"),
        };
        let dims: String = if input.dims.is_empty() { String::new() } else { format!(", {}", list(&input.dims)) };
        let _ = write!(
            make,
            "\tvalues{index} := make([]{element}, {})\n\tfor i := range values{index} {{\n\t\tvalues{index}[i] = {one}\n\t}}\n\
             \tinput{index}, err := optimize.NewTensor(values{index}{dims})\n\tif err != nil {{\n\t\treturn err\n\t}}\n\
             \tinputs[{}] = input{index}\n",
            input.elements,
            quoted(&input.name)
        );
    }
    let source = TEMPLATE.replace("@PATH@", &quoted(path)).replace("@MAKE@", &make);
    let module = MODULE.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    vec![("main.go", source), ("go.mod", module)]
}

const MODULE: &str = "module package-program

go 1.23

require github.com/liboptimize/liboptimize/bindings/go v@VERSION@

// `go mod tidy` fetches it. For a copy in a folder:
// go mod edit -replace github.com/liboptimize/liboptimize/bindings/go=FOLDER
";

const TEMPLATE: &str = r#"// Opens a package and runs it once. Give another package as the first argument.
package main

import (
	"context"
	"fmt"
	"os"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

func run(path string) error {
	c, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	p, err := optimize.OpenPackage(path, nil)
	if err != nil {
		return err
	}
	session, err := c.NewPackageSession(context.Background(), p, nil)
	if err != nil {
		return err
	}
	inputs := map[string]*optimize.Tensor{}
@MAKE@	infos, err := session.Outputs()
	if err != nil {
		return err
	}
	outputs, err := session.Run(context.Background(), inputs)
	if err != nil {
		return err
	}
	for _, info := range infos {
		output := outputs[info.Name]
		fmt.Printf("%s [", info.Name)
		for i, dim := range output.Dims() {
			if i > 0 {
				fmt.Print(", ")
			}
			fmt.Print(dim)
		}
		fmt.Print("]")
		if info.DType == optimize.Float32 {
			values, err := optimize.Elements[float32](output)
			if err != nil {
				return err
			}
			for i := 0; i < 8 && i < len(values); i++ {
				fmt.Printf(" %.5f", values[i])
			}
		}
		fmt.Println()
	}
	return nil
}

func main() {
	path := @PATH@
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := run(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"#;
