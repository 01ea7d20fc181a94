// The search for the library.

#if NET8_0_OR_GREATER
using System;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
#endif

namespace Optimize
{
    internal static partial class Native
    {
        // The name of liboptimize.so for the runtime, which adds "lib" and ".so". It searches for the file next to the
        // program, in the native folder of the NuGet package, and where the system's loader searches (LD_LIBRARY_PATH,
        // ld.so.conf).
        private const string Library = "optimize";

        // The file name of the library where the development package, which has the link liboptimize.so, is not
        // installed. Resolve tries this name second. For Mono, Optimize.dll.config maps the name in the same way.
        internal const string Soname = "liboptimize.so.0.1";

#if NET8_0_OR_GREATER
        [ModuleInitializer]
        internal static void FindLibrary() { NativeLibrary.SetDllImportResolver(typeof(Native).Assembly, Resolve); }

        private static IntPtr Resolve(string name, Assembly assembly, DllImportSearchPath? path)
        {
            IntPtr library;
            if (name != Library) return IntPtr.Zero; // .NET then searches by its default rules.
            if (NativeLibrary.TryLoad(name, assembly, path, out library)) return library;
            return NativeLibrary.TryLoad(Soname, assembly, path, out library) ? library : IntPtr.Zero;
        }
#endif
    }
}
