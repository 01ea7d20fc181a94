// Packages, which contain models that were prepared ahead of time.

using System;
using System.Collections.Generic;

namespace Optimize
{
    /// <summary>The range of sizes of a dimension of an input.</summary>
    public sealed class Dimension
    {
        /// <summary>Name of the input, or its position among the inputs as text, such as "0".</summary>
        public string Input { get; set; }

        /// <summary>Index of the dimension of the input, from 0.</summary>
        public uint Index { get; set; }

        /// <summary>Name of the dimension. Dimensions with the same name have the same range, and the same size in
        /// each run.</summary>
        public string Name { get; set; }

        /// <summary>Minimum size of the dimension.</summary>
        public ulong Min { get; set; }

        /// <summary>Maximum size of the dimension; 0 for no limit.</summary>
        public ulong Max { get; set; }
    }

    /// <summary>Options of Context.Compile. Properties that are 0 or null have their defaults.</summary>
    public sealed class PackageOptions
    {
        /// <summary>Whether every dynamic dimension of the model gets a range; the first dimension of an input is the
        /// batch. The dynamic dimensions of decoders always get ranges.</summary>
        public bool Dynamic { get; set; }

        /// <summary>Minimum batch size; 0 for 1.</summary>
        public ulong BatchMin { get; set; }

        /// <summary>Maximum batch size; 0 for 64.</summary>
        public ulong BatchMax { get; set; }

        /// <summary>Ranges of dimensions as JSON, {input: {dimension: {"name", "min", "max"}}}, where an input is a
        /// name or a position, and a dimension an index; null for none.</summary>
        [AllowNull, MaybeNull] public string DynamicShapes { get; set; }

        /// <summary>Comma-separated precisions of the variants, in order of preference: "fp32" (the model as it is),
        /// "bf16" (the same with matrix products in bfloat16), "int8" (dynamic quantization) and "int4" (weight-only
        /// quantization). Null for "fp32".</summary>
        [AllowNull, MaybeNull] public string Variants { get; set; }

        /// <summary>Licence of the model, which is stored in the manifest; null for none.</summary>
        [AllowNull, MaybeNull] public string Licence { get; set; }

        /// <summary>Secret ed25519 key that signs the package, as 64 hexadecimal digits; null for none.</summary>
        [AllowNull, MaybeNull] public string SignKey { get; set; }

        /// <summary>Whether one file is written instead of a folder.</summary>
        public bool SingleFile { get; set; }

        /// <summary>Whether graphs that are optimized for this processor are left out.</summary>
        public bool PortableOnly { get; set; }

        /// <summary>Whether the weights are stored packed, so that a zero takes one bit. Each variant then has its own
        /// weights, and no graph is optimized for this processor.</summary>
        public bool Packed { get; set; }

        /// <summary>Path of a TensorRT engine of the model, with its manifest next to it, which is added as a variant;
        /// null for none.</summary>
        [AllowNull, MaybeNull] public string Engine { get; set; }

        /// <summary>Reports in JSON of the steps that led to the model, oldest first; null for none.</summary>
        [AllowNull, MaybeNull] public IList<string> Lineage { get; set; }

        /// <summary>Ranges of dimensions; null for none. A dimension must not have ranges both here and in
        /// DynamicShapes.</summary>
        [AllowNull, MaybeNull] public IList<Dimension> Dimensions { get; set; }

        internal Native.PackageCompileOptions ToNative(Scratch scratch)
        {
            return new Native.PackageCompileOptions
            {
                StructSize = Handle.SizeOf<Native.PackageCompileOptions>(),
                Dynamic = Dynamic ? 1u : 0,
                BatchMin = BatchMin,
                BatchMax = BatchMax,
                DynamicShapes = scratch.Text(DynamicShapes),
                Variants = scratch.Text(Variants),
                Licence = scratch.Text(Licence),
                SignKey = scratch.Text(SignKey),
                SingleFile = SingleFile ? 1u : 0,
                PortableOnly = PortableOnly ? 1u : 0,
                Packed = Packed ? 1u : 0,
                Dimensions = scratch.Dimensions(Dimensions),
                DimensionCount = (ulong)(Dimensions?.Count ?? 0),
                Engine = scratch.Text(Engine),
                Lineage = scratch.Texts(Lineage),
                LineageCount = Scratch.Count(Lineage),
            };
        }
    }

    /// <summary>An open package: a model that Context.Compile has prepared ahead of time. It is immutable. The files of
    /// the package are memory-mapped, and must not be changed while it is open.</summary>
    public sealed partial class Package : Handle
    {
        internal Package() { }

        /// <summary>Opens a package, which is a folder or a file. <paramref name="variant"/> is the name or the
        /// precision of a variant; null selects one by processor and execution provider. <paramref name="publicKey"/>
        /// is the public ed25519 key that must have signed the package, as 64 hexadecimal digits; null for none. Throws
        /// Status.NotFound if the path or the requested variant does not exist. Also throws Status.Unsupported if the
        /// package has a newer format or no variant for this machine, and Status.InvalidModel if the package is damaged
        /// or not signed by the key.</summary>
        public static Package Open(string path, [AllowNull] string variant = null, [AllowNull] string publicKey = null)
        {
            using (var scratch = new Scratch())
            {
                var native = new Native.PackageOpenOptions
                {
                    StructSize = SizeOf<Native.PackageOpenOptions>(),
                    Variant = scratch.Text(variant),
                    PublicKey = scratch.Text(publicKey),
                };
                Package package;
                ErrorHandle error;
                OptimizeException.Check(
                    Native.optimize_package_open(scratch.Text(path), ref native, out package, out error), error);
                return package;
            }
        }

        /// <summary>Returns the model of the package, for techniques, benchmarks and inspection. Sessions of this model
        /// check the shape contract, like those of Context.CreateSession for a package. Throws Status.InvalidModel if
        /// the model's files are damaged.</summary>
        public Model Model()
        {
            Model model;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_package_model(this, out model, out error), error);
            return model;
        }

        /// <summary>Returns the tokenizer of the package. Throws Status.NotFound if the package has none.</summary>
        public Tokenizer Tokenizer()
        {
            Tokenizer tokenizer;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_package_tokenizer(this, out tokenizer, out error), error);
            return tokenizer;
        }

        /// <summary>Returns a description of the package as JSON: the manifest, the variant that is used on this
        /// machine, and the reason for this variant.</summary>
        public Report Inspect(Context context)
        {
            Need(context, "context");
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_package_inspect(context, this, out json, out error), error);
            return new Report(json);
        }

        /// <summary>Verifies every byte of the package: the hash of each file, and the signature if there is one.
        /// <paramref name="publicKey"/> is the public ed25519 key that must have signed the package, as 64 hexadecimal
        /// digits; null accepts any key. Throws Status.InvalidModel if a file is damaged, or if the signature is wrong,
        /// of another key, or missing although a key is given.</summary>
        public void Verify([AllowNull] string publicKey = null, [AllowNull] Call call = null)
        {
            using (var scratch = new Scratch())
            {
                IntPtr key = scratch.Text(publicKey);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) =>
                    Native.optimize_package_verify(this, key, ref native, out error));
            }
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr package) { Native.optimize_package_free(package); }
    }

    public sealed partial class Context
    {
        /// <summary>Writes a package of a model to a path, and replaces an existing package there, atomically where the
        /// file system supports it. Returns JSON: {"files": [{"path", "bytes", "sha256"}]}. Throws
        /// Status.InvalidArgument if something other than a package exists at the path, or if ranges contradict the
        /// model or each other.</summary>
        public Report Compile(Model model, string path, [AllowNull] PackageOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var raw = (options ?? new PackageOptions()).ToNative(scratch);
                IntPtr cPath = scratch.Text(path);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_package_compile(
                    this, model, cPath, ref raw, ref native, out report, out error));
            }
            return new Report(report);
        }

        /// <summary>Creates a session of a package, with the variant that Package.Open was asked for, or else the first
        /// one that fits this machine. Each run first checks types and sizes of its inputs against the manifest (the
        /// shape contract), and throws Status.InvalidArgument if an input does not fit. The package may be disposed of
        /// before the session. Throws the same as CreateSession for a model.</summary>
        public Session CreateSession(Package package, [AllowNull] SessionOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(package, "package");
            Session session = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new SessionOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_package_session(
                    this, package, ref given, ref native, out session, out error));
            }
            return session;
        }

        /// <summary>Creates a generator of the model of a package. The package and the draft model may be disposed of
        /// before the generator. Throws Status.Unsupported if a model does not generate text, and otherwise the same as
        /// CreateGenerator for a model.</summary>
        public Generator CreateGenerator(Package package, [AllowNull] GeneratorOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(package, "package");
            Generator generator = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new GeneratorOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_package_generator(
                    this, package, ref given, ref native, out generator, out error));
            }
            return generator;
        }
    }
}
