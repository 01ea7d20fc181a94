//! The program in C#, with a project file that references the NuGet package `LibOptimize`, and a Makefile for Mono.

use super::{Input, list, quoted_in_csharp};
use crate::onnx::dtype::DataType;
use std::fmt::Write;

/// Returns the files of a program that opens the package at `path` and runs it, each with its name and content.
pub fn program(path: &str, inputs: &[Input]) -> Vec<(&'static str, String)> {
    let mut make = String::new();
    for (index, input) in inputs.iter().enumerate() {
        let (element, one) = match input.dtype {
            DataType::Float32 => ("float", "1"),
            DataType::Int64 => ("long", "1"),
            DataType::Int32 => ("int", "1"),
            _ => ("bool", "true"),
        };
        let dims: String = if input.dims.is_empty() { String::new() } else { format!(", {}", list(&input.dims)) };
        let _ = write!(
            make,
            "                var values{index} = new {element}[{}];\n                \
             for (int i = 0; i < values{index}.Length; i++) values{index}[i] = {one};\n                \
             inputs[{}] = Tensor.From(values{index}{dims});\n",
            input.elements,
            quoted_in_csharp(&input.name)
        );
    }
    let source = TEMPLATE.replace("@PATH@", &quoted_in_csharp(path)).replace("@MAKE@", &make);
    let project = PROJECT.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    vec![("Program.cs", source), ("package-program.csproj", project), ("Makefile", MAKEFILE.to_owned())]
}

const PROJECT: &str = r#"<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net8.0</TargetFramework>
  </PropertyGroup>
  <ItemGroup>
    <PackageReference Include="LibOptimize" Version="@VERSION@" />
  </ItemGroup>
</Project>
"#;

const MAKEFILE: &str = "# For Mono. OPTIMIZE is the folder of Optimize.dll, which bindings/csharp of liboptimize makes.\n\
                        OPTIMIZE ?= .\n\n\
                        main.exe: Program.cs\n\tmcs -nologo -r:$(OPTIMIZE)/Optimize.dll -out:main.exe Program.cs\n";

const TEMPLATE: &str = r#"// Opens a package and runs it once. Give another package as the first argument.
using System;
using System.Collections.Generic;
using System.Globalization;
using Optimize;

static class PackageProgram
{
    static void Run(string path)
    {
        using (var context = Context.Create())
        using (var package = Package.Open(path))
        using (var session = context.CreateSession(package))
        {
            var inputs = new Dictionary<string, Tensor>();
            try
            {
@MAKE@                var outputs = session.Run(inputs);
                foreach (var info in session.Outputs())
                {
                    var output = outputs[info.Name];
                    Console.Write("{0} [{1}]", info.Name, string.Join(", ", output.Dims));
                    if (info.DType == DType.Float32)
                    {
                        var values = output.Elements<float>();
                        for (int i = 0; i < 8 && i < values.Length; i++)
                            Console.Write(" " + values[i].ToString("F5", CultureInfo.InvariantCulture));
                    }
                    Console.WriteLine();
                    output.Dispose();
                }
            }
            finally
            {
                foreach (var input in inputs.Values) input.Dispose();
            }
        }
    }

    static int Main(string[] arguments)
    {
        try
        {
            Run(arguments.Length > 0 ? arguments[0] : @PATH@);
            return 0;
        }
        catch (OptimizeException error)
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }
}
"#;
