// Tensors, and the description of inputs and outputs.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Element types, with their values in ONNX. Types below a byte are packed, low bits first.</summary>
    public enum DType
    {
        Unknown = 0, Float32 = 1, UInt8 = 2, Int8 = 3, UInt16 = 4, Int16 = 5, Int32 = 6, Int64 = 7, String = 8,
        Bool = 9, Float16 = 10, Float64 = 11, UInt32 = 12, UInt64 = 13, Complex64 = 14, Complex128 = 15, BFloat16 = 16,
        Float8E4M3FN = 17, Float8E4M3FNUZ = 18, Float8E5M2 = 19, Float8E5M2FNUZ = 20, UInt4 = 21, Int4 = 22,
        Float4E2M1 = 23, Float8E8M0 = 24, UInt2 = 25, Int2 = 26,
    }

    /// <summary>Name, type and shape of an input or output.</summary>
    public sealed class ValueInfo
    {
        /// <summary>The name to use in a run.</summary>
        public string Name { get; private set; }

        /// <summary>Element type; Unknown for a sequence or map.</summary>
        public DType DType { get; private set; }

        /// <summary>Sizes; -1 for dynamic sizes, null if the rank is unknown.</summary>
        public long[] Dims { get; private set; }

        /// <summary>Names of dimensions: equal names mean equal sizes; "" has no meaning.</summary>
        public string[] DimNames { get; private set; }

        internal delegate int Get(UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error);

        internal static IList<ValueInfo> All(Handle owner, UIntPtr count, Get get)
        {
            var list = new ValueInfo[(int)count];
            for (int i = 0; i < list.Length; i++)
            {
                var native = new Native.ValueInfo { StructSize = Handle.SizeOf<Native.ValueInfo>() };
                ErrorHandle error;
                OptimizeException.Check(get((UIntPtr)i, ref native, out error), error);
                list[i] = new ValueInfo { Name = Utf8.Read(native.Name), DType = (DType)native.DType };
                if (native.Rank < 0) continue;
                list[i].Dims = new long[native.Rank];
                list[i].DimNames = new string[native.Rank];
                for (int d = 0; d < native.Rank; d++)
                {
                    list[i].Dims[d] = Marshal.ReadInt64(native.Dims, d * sizeof(long));
                    list[i].DimNames[d] = Utf8.Read(Marshal.ReadIntPtr(native.DimNames, d * IntPtr.Size));
                }
            }
            GC.KeepAlive(owner); // owns the memory of the pointers
            return list;
        }
    }

    /// <summary>Elements with a type and a shape. It is immutable.</summary>
    public sealed class Tensor : Handle
    {
        private static readonly Dictionary<Type, DType> Types = new Dictionary<Type, DType>
        {
            { typeof(float), DType.Float32 }, { typeof(double), DType.Float64 }, { typeof(bool), DType.Bool },
            { typeof(sbyte), DType.Int8 }, { typeof(short), DType.Int16 }, { typeof(int), DType.Int32 },
            { typeof(long), DType.Int64 }, { typeof(byte), DType.UInt8 }, { typeof(ushort), DType.UInt16 },
            { typeof(uint), DType.UInt32 }, { typeof(ulong), DType.UInt64 },
        };

        internal Tensor() { }

        internal Tensor(IntPtr tensor) { SetHandle(tensor); }

        /// <summary>Makes a tensor from a copy of numbers in row-major order. Without dims it is a scalar.</summary>
        public static Tensor From<T>(T[] elements, params long[] dims) where T : struct
        {
            var type = TypeOf<T>();
            var bytes = new byte[Buffer.ByteLength(elements)];
            Buffer.BlockCopy(elements, 0, bytes, 0, bytes.Length);
            return FromBytes(type, bytes, dims);
        }

        /// <summary>Makes a tensor of any type except String from a copy of the bytes of its elements.</summary>
        public static Tensor FromBytes(DType type, byte[] data, params long[] dims)
        {
            var pin = GCHandle.Alloc(data, GCHandleType.Pinned);
            try
            {
                Tensor tensor;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_tensor_new((int)type, dims, (UIntPtr)dims.Length,
                    pin.AddrOfPinnedObject(), (UIntPtr)data.Length, out tensor, out error), error);
                return tensor;
            }
            finally
            {
                pin.Free();
            }
        }

        /// <summary>Makes a tensor over an array without copying it. The array is pinned until nothing uses the
        /// tensor, and must not be changed until then. Not for bool.</summary>
        public static Tensor Borrow<T>(T[] elements, params long[] dims) where T : struct
        {
            var type = TypeOf<T>();
            var size = (UIntPtr)((ulong)elements.LongLength * (ulong)Buffer.ByteLength(new T[1]));
            var pin = GCHandle.Alloc(elements, GCHandleType.Pinned);
            try
            {
                Tensor tensor;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_tensor_borrow((int)type, dims, (UIntPtr)dims.Length,
                    pin.AddrOfPinnedObject(), size, Unpin, GCHandle.ToIntPtr(pin), out tensor, out error), error);
                return tensor;
            }
            catch
            {
                pin.Free();
                throw;
            }
        }

        // The library calls it when the last user is gone, on any thread; a static field is never collected.
        private static readonly Native.ReleaseFn Unpin = pin => GCHandle.FromIntPtr(pin).Free();

        /// <summary>Makes a tensor of strings, which must not contain NUL.</summary>
        public static Tensor FromStrings(IList<string> strings, params long[] dims)
        {
            using (var scratch = new Scratch())
            {
                Tensor tensor;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_tensor_new_strings(dims, (UIntPtr)dims.Length,
                    scratch.Texts(strings), IntPtr.Zero, (UIntPtr)strings.Count, out tensor, out error), error);
                return tensor;
            }
        }

        public DType DType { get { return (DType)Native.optimize_tensor_dtype(this); } }

        /// <summary>The shape; empty for a scalar.</summary>
        public long[] Dims
        {
            get
            {
                var dims = new long[(int)Native.optimize_tensor_rank(this)];
                if (dims.Length > 0) Marshal.Copy(Native.optimize_tensor_dims(this), dims, 0, dims.Length);
                GC.KeepAlive(this);
                return dims;
            }
        }

        /// <summary>Copies the elements; T must match DType.</summary>
        public T[] Elements<T>() where T : struct
        {
            var type = TypeOf<T>();
            if (type != DType) throw new InvalidOperationException("the tensor holds " + DType + ", not " + type);
            var bytes = Bytes();
            var elements = new T[bytes.Length / Buffer.ByteLength(new T[1])];
            Buffer.BlockCopy(bytes, 0, elements, 0, bytes.Length);
            return elements;
        }

        /// <summary>Copies the bytes of the elements; returns none for strings.</summary>
        public byte[] Bytes()
        {
            var bytes = new byte[checked((int)(ulong)Native.optimize_tensor_size(this))];
            if (bytes.Length > 0) Marshal.Copy(Native.optimize_tensor_data(this), bytes, 0, bytes.Length);
            GC.KeepAlive(this);
            return bytes;
        }

        /// <summary>Copies the strings of a tensor of strings.</summary>
        public string[] Strings()
        {
            long count = 1;
            foreach (var dim in Dims) count *= dim;
            var strings = new string[count];
            for (long i = 0; i < count; i++)
            {
                IntPtr data;
                UIntPtr size;
                ErrorHandle error;
                int status = Native.optimize_tensor_string(this, (UIntPtr)(ulong)i, out data, out size, out error);
                OptimizeException.Check(status, error);
                strings[i] = Utf8.Read(data, (long)size);
            }
            GC.KeepAlive(this);
            return strings;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr tensor) { Native.optimize_tensor_free(tensor); }

        private static DType TypeOf<T>()
        {
            DType type;
            if (Types.TryGetValue(typeof(T), out type)) return type;
            throw new ArgumentException(typeof(T) + " is no element type: give its bytes to FromBytes");
        }
    }
}
