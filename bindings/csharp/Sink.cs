// Saving to streams of the program.

using System;
using System.IO;
using System.Runtime.InteropServices;

namespace Optimize
{
    internal static class Sinks
    {
        internal delegate int Body(ref Native.Sink sink, ref Native.Call call, out ErrorHandle error);

        /// <summary>Makes a call of the library that writes files to the streams that a function returns for their
        /// names. The streams are disposed of. Throws what the function or a stream throws.</summary>
        internal static void Run(Func<string, Stream> create, Call call, Body body)
        {
            if (create == null) throw new ArgumentNullException("create");
            var caught = new Caught();
            Stream file = null;
            Native.WriteFn write = (userData, name, data, size) => caught.Guard(() =>
            {
                file = file ?? create(Utf8.Read(name));
                var bytes = new byte[(int)size];
                if (bytes.Length > 0)
                {
                    Marshal.Copy(data, bytes, 0, bytes.Length);
                    file.Write(bytes, 0, bytes.Length);
                    return true;
                }
                var complete = file;
                file = null;
                complete.Dispose();
                return true;
            });
            var native = new Native.Sink
            {
                StructSize = Handle.SizeOf<Native.Sink>(),
                Write = Marshal.GetFunctionPointerForDelegate(write),
            };
            try
            {
                Call.Run(call, (ref Native.Call settings, out ErrorHandle error) =>
                    body(ref native, ref settings, out error), caught);
            }
            finally
            {
                if (file != null) file.Dispose(); // the call failed before the end of this file
            }
            GC.KeepAlive(write); // the library calls the delegate until here
        }
    }

    public sealed partial class Model
    {
        /// <summary>Saves the model to the stream that <paramref name="create"/> returns for <paramref name="name"/>,
        /// for example to encrypt or upload it. If the weights are stored as external data, the function is called for
        /// their file first. Streams are disposed of after their last byte. Returns JSON: {"files": [{"path", "bytes",
        /// "sha256"}]}. Throws what the function or a stream throws, after which the files are not complete;
        /// Status.LimitExceeded if the .onnx file would have more than 2 GiB; and Status.InvalidArgument for a packed
        /// file with ExternalData.Always.</summary>
        public Report Save(
            Func<string, Stream> create, string name, ExternalData externalData = ExternalData.Auto,
            [AllowNull] Call call = null, bool packed = false)
        {
            var bytes = Utf8.Bytes(name);
            var options = new Native.SaveOptions
            {
                StructSize = SizeOf<Native.SaveOptions>(),
                ExternalData = (int)externalData,
                Packed = packed ? 1u : 0,
            };
            BufferHandle report = null;
            Sinks.Run(create, call, (ref Native.Sink sink, ref Native.Call native, out ErrorHandle error) =>
                Native.optimize_model_save_sink(
                    this, ref sink, bytes, ref options, ref native, out report, out error));
            return new Report(report);
        }
    }

    public sealed partial class Context
    {
        /// <summary>Writes a package of a model, as one file, to the stream that <paramref name="create"/> returns for
        /// <paramref name="name"/>. The stream is disposed of after its last byte. Returns JSON: {"files": [{"path",
        /// "bytes", "sha256"}]}. Throws what the function or the stream throws, after which the file is not complete,
        /// and otherwise the same as Compile for a path.</summary>
        public Report Compile(Model model, Func<string, Stream> create, string name,
            [AllowNull] PackageOptions options = null, [AllowNull] Call call = null)
        {
            Need(model, "model");
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var raw = (options ?? new PackageOptions()).ToNative(scratch);
                IntPtr cName = scratch.Text(name);
                Sinks.Run(create, call, (ref Native.Sink sink, ref Native.Call native, out ErrorHandle error) =>
                    Native.optimize_package_compile_sink(
                        this, model, ref sink, cName, ref raw, ref native, out report, out error));
            }
            return new Report(report);
        }
    }

    internal static partial class Native
    {
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int WriteFn(IntPtr userData, IntPtr name, IntPtr data, UIntPtr size);

        [StructLayout(LayoutKind.Sequential)]
        internal struct Sink
        {
            internal uint StructSize, Reserved;
            internal IntPtr Write, UserData;
        }

        [DllImport(Library)] internal static extern int optimize_model_save_sink(
            Model model, ref Sink sink, byte[] name, ref SaveOptions options, ref Call call, out BufferHandle report,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_compile_sink(
            Context context, Model model, ref Sink sink, IntPtr name, ref PackageCompileOptions options, ref Call call,
            out BufferHandle report, out ErrorHandle error);
    }
}
