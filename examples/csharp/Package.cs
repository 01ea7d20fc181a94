// Packages: a model with all that belongs to it, and the shapes it takes.

using System.Collections.Generic;

namespace Optimize
{
    /// <summary>Options of Package.Compile. By default every input has the shape of an example.</summary>
    public sealed class CompileOptions
    {
        /// <summary>Inputs keep the sizes that the model leaves open.</summary>
        public bool Dynamic { get; set; }

        /// <summary>With Dynamic: the fewest rows of a batch; 0 and BatchMax 0 is any.</summary>
        public ulong BatchMin { get; set; }

        /// <summary>The most rows; 0 is no limit.</summary>
        public ulong BatchMax { get; set; }

        /// <summary>JSON: {"input_ids": {"0": {"name": "batch", "min": 1, "max": 64}}}; null is none.</summary>
        public string DynamicShapes { get; set; }

        /// <summary><c>NAME:2x3x4</c>, where the model leaves sizes open.</summary>
        public IList<string> Example { get; set; }
    }

    /// <summary>Packages. Context.Load takes one like any other model; sessions of it refuse other shapes.</summary>
    public static class Package
    {
        /// <summary>Writes a package. Gives the JSON of docs/report.md.</summary>
        public static string Compile(Model model, string path, CompileOptions options = null, Call call = null)
        {
            options = options ?? new CompileOptions();
            using (var scratch = new Scratch())
            {
                var given = new Native.CompileOptions
                {
                    StructSize = Handle.SizeOf<Native.CompileOptions>(),
                    Dynamic = options.Dynamic ? 1u : 0,
                    BatchMin = options.BatchMin,
                    BatchMax = options.BatchMax,
                    DynamicShapes = scratch.Text(options.DynamicShapes),
                    Example = scratch.Texts(options.Example),
                    ExampleCount = Scratch.Count(options.Example),
                };
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_package_compile(
                    model, Utf8.Bytes(path), ref given, ref native, out report, out error));
                return report.Take();
            }
        }

        /// <summary>Compares all of a package with the hashes in it; Status.InvalidModel names what was changed. Gives
        /// {"files", "bytes"} as JSON.</summary>
        public static string Verify(string path, Call call = null)
        {
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_package_verify(
                Utf8.Bytes(path), ref native, out report, out error));
            return report.Take();
        }
    }
}
