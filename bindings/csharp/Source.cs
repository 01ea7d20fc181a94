// Loading of files that the program provides.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>The files of a model, which the program provides, for example decrypted, or from an archive. A name is
    /// a relative path with '/'. The methods are called on the thread that makes the call of the library, and only
    /// during this call, which throws what the methods throw.</summary>
    public interface IFileSource
    {
        /// <summary>Returns the size of a file in bytes, or null if there is no such file.</summary>
        long? Size(string name);

        /// <summary>Fills the whole buffer with the bytes of a file that begin at an offset. These bytes lie inside the
        /// size that Size returned.</summary>
        void Read(string name, long offset, byte[] buffer);
    }

    /// <summary>A source of files whose contents are in memory.</summary>
    public sealed class MemorySource : IFileSource
    {
        private readonly IDictionary<string, byte[]> files;

        /// <summary>Creates a source of files, whose contents are given by file name. The dictionary is not
        /// copied.</summary>
        public MemorySource(IDictionary<string, byte[]> files) { this.files = files; }

        /// <inheritdoc/>
        public long? Size(string name)
        {
            byte[] content;
            return files.TryGetValue(name, out content) ? content.LongLength : (long?)null;
        }

        /// <inheritdoc/>
        public void Read(string name, long offset, byte[] buffer)
        {
            Array.Copy(files[name], offset, buffer, 0, buffer.Length);
        }
    }

    internal static class Sources
    {
        private const int NotFound = (int)Status.NotFound;

        internal delegate int Body(ref Native.Source source, ref Native.Call call, out ErrorHandle error);

        /// <summary>Makes a call of the library with the files of a source. Throws what the source throws.</summary>
        internal static void Run(IFileSource source, Call call, Body body)
        {
            if (source == null) throw new ArgumentNullException("source");
            var caught = new Caught();
            Native.SizeFn size = (IntPtr userData, IntPtr name, out ulong found) =>
            {
                long? known = null;
                int failed = caught.Guard(() =>
                {
                    known = source.Size(Utf8.Read(name));
                    return true;
                });
                found = (ulong)(known ?? 0);
                return failed != 0 || known.HasValue ? failed : NotFound;
            };
            Native.ReadFn read = (userData, name, offset, buffer, count) => caught.Guard(() =>
            {
                var bytes = new byte[(int)count];
                source.Read(Utf8.Read(name), (long)offset, bytes);
                Marshal.Copy(bytes, 0, buffer, bytes.Length);
                return true;
            });
            var native = new Native.Source
            {
                StructSize = Handle.SizeOf<Native.Source>(),
                Size = Marshal.GetFunctionPointerForDelegate(size),
                Read = Marshal.GetFunctionPointerForDelegate(read),
            };
            Call.Run(call, (ref Native.Call settings, out ErrorHandle error) =>
                body(ref native, ref settings, out error), caught);
            GC.KeepAlive(size); // the library calls the delegates until here
            GC.KeepAlive(read);
        }
    }

    public sealed partial class Context
    {
        /// <summary>Loads a model from the file <paramref name="name"/> of a source: an .onnx file with its external
        /// data and the files next to it, a packed file, a .gguf file, or a package in one file. All files are read
        /// during the call, into memory that the model keeps. Throws Status.NotFound if the file, or one with its
        /// external data, does not exist; Status.InvalidModel for a damaged file; and Status.Unsupported like Load for
        /// a path.</summary>
        public Model Load(IFileSource source, string name, [AllowNull] Call call = null)
        {
            var bytes = Utf8.Bytes(name);
            Model model = null;
            Sources.Run(source, call, (ref Native.Source files, ref Native.Call native, out ErrorHandle error) =>
                Native.optimize_model_load_source(this, ref files, bytes, ref native, out model, out error));
            return model;
        }
    }

    public sealed partial class Package
    {
        /// <summary>Opens a package in one file, the file <paramref name="name"/> of a source. The file is read during
        /// the call, into memory that the package keeps. <paramref name="variant"/> and <paramref name="publicKey"/>
        /// are those of Open for a path, which throws the same.</summary>
        public static Package Open(Context context, IFileSource source, string name,
            [AllowNull] string variant = null, [AllowNull] string publicKey = null, [AllowNull] Call call = null)
        {
            Package package = null;
            using (var scratch = new Scratch())
            {
                var options = new Native.PackageOpenOptions
                {
                    StructSize = SizeOf<Native.PackageOpenOptions>(),
                    Variant = scratch.Text(variant),
                    PublicKey = scratch.Text(publicKey),
                };
                var bytes = Utf8.Bytes(name);
                Sources.Run(source, call, (ref Native.Source files, ref Native.Call native, out ErrorHandle error) =>
                    Native.optimize_package_open_source(
                        context, ref files, bytes, ref options, ref native, out package, out error));
            }
            return package;
        }
    }

    public sealed partial class Tokenizer
    {
        /// <summary>Loads a tokenizer from the file <paramref name="name"/> of a source, a tokenizer.json. If the file
        /// has this name, the settings of the files next to it are applied, as in Load for a path, which throws the
        /// same.</summary>
        public static Tokenizer Load(IFileSource source, string name)
        {
            var bytes = Utf8.Bytes(name);
            Tokenizer tokenizer = null;
            Sources.Run(source, null, (ref Native.Source files, ref Native.Call native, out ErrorHandle error) =>
                Native.optimize_tokenizer_load_source(ref files, bytes, out tokenizer, out error));
            return tokenizer;
        }
    }

    internal static partial class Native
    {
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int SizeFn(IntPtr userData, IntPtr name, out ulong size);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int ReadFn(IntPtr userData, IntPtr name, ulong offset, IntPtr buffer, UIntPtr size);

        [StructLayout(LayoutKind.Sequential)]
        internal struct Source
        {
            internal uint StructSize, Reserved;
            internal IntPtr Size, Read, UserData;
        }

        [DllImport(Library)] internal static extern int optimize_model_load_source(
            Context context, ref Source source, byte[] name, ref Call call, out Model model, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_open_source(
            Context context, ref Source source, byte[] name, ref PackageOpenOptions options, ref Call call,
            out Package package, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tokenizer_load_source(
            ref Source source, byte[] name, out Tokenizer tokenizer, out ErrorHandle error);
    }
}
