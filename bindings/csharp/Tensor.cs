// Tensors, and the description of inputs and outputs.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Element types, with the values of ONNX's TensorProto.DataType. Elements of less than a byte are packed,
    /// low bits first.</summary>
    public enum DType
    {
        /// <summary>The value is no tensor, or the model does not declare its type.</summary>
        Unknown = 0,

        /// <summary>The type Float32 of ONNX.</summary>
        Float32 = 1,

        /// <summary>The type UInt8 of ONNX.</summary>
        UInt8 = 2,

        /// <summary>The type Int8 of ONNX.</summary>
        Int8 = 3,

        /// <summary>The type UInt16 of ONNX.</summary>
        UInt16 = 4,

        /// <summary>The type Int16 of ONNX.</summary>
        Int16 = 5,

        /// <summary>The type Int32 of ONNX.</summary>
        Int32 = 6,

        /// <summary>The type Int64 of ONNX.</summary>
        Int64 = 7,

        /// <summary>The type String of ONNX.</summary>
        String = 8,

        /// <summary>The type Bool of ONNX.</summary>
        Bool = 9,

        /// <summary>The type Float16 of ONNX.</summary>
        Float16 = 10,

        /// <summary>The type Float64 of ONNX.</summary>
        Float64 = 11,

        /// <summary>The type UInt32 of ONNX.</summary>
        UInt32 = 12,

        /// <summary>The type UInt64 of ONNX.</summary>
        UInt64 = 13,

        /// <summary>The type Complex64 of ONNX.</summary>
        Complex64 = 14,

        /// <summary>The type Complex128 of ONNX.</summary>
        Complex128 = 15,

        /// <summary>The type BFloat16 of ONNX.</summary>
        BFloat16 = 16,

        /// <summary>The type Float8E4M3FN of ONNX.</summary>
        Float8E4M3FN = 17,

        /// <summary>The type Float8E4M3FNUZ of ONNX.</summary>
        Float8E4M3FNUZ = 18,

        /// <summary>The type Float8E5M2 of ONNX.</summary>
        Float8E5M2 = 19,

        /// <summary>The type Float8E5M2FNUZ of ONNX.</summary>
        Float8E5M2FNUZ = 20,

        /// <summary>The type UInt4 of ONNX.</summary>
        UInt4 = 21,

        /// <summary>The type Int4 of ONNX.</summary>
        Int4 = 22,

        /// <summary>The type Float4E2M1 of ONNX.</summary>
        Float4E2M1 = 23,

        /// <summary>The type Float8E8M0 of ONNX.</summary>
        Float8E8M0 = 24,

        /// <summary>The type UInt2 of ONNX.</summary>
        UInt2 = 25,

        /// <summary>The type Int2 of ONNX.</summary>
        Int2 = 26,
    }

    /// <summary>Name, type and shape of an input or output.</summary>
    public sealed class ValueInfo
    {
        /// <summary>Name of the input or output.</summary>
        public string Name { get; private set; }

        /// <summary>Element type; Unknown for a sequence, a map or an undeclared type.</summary>
        public DType DType { get; private set; }

        /// <summary>Sizes of the dimensions, -1 for dynamic ones; empty for a scalar; null if the model does not
        /// declare the number of dimensions.</summary>
        public long[] Dims { get; private set; }

        /// <summary>Names of the dimensions, "" for those without a name; null if Dims is null. Dimensions with the
        /// same name must have the same size in a run, except for names without meaning that exporters write, such as
        /// "?" or "unk__12".</summary>
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
            GC.KeepAlive(owner); // the model or session owns the memory that was read
            return list;
        }
    }

    /// <summary>A tensor: elements with a type and a shape. It is immutable.</summary>
    public sealed partial class Tensor : Handle
    {
        private static readonly Dictionary<Type, DType> Types = new Dictionary<Type, DType>
        {
            { typeof(float), DType.Float32 }, { typeof(double), DType.Float64 }, { typeof(bool), DType.Bool },
            { typeof(sbyte), DType.Int8 }, { typeof(short), DType.Int16 }, { typeof(int), DType.Int32 },
            { typeof(long), DType.Int64 }, { typeof(byte), DType.UInt8 }, { typeof(ushort), DType.UInt16 },
            { typeof(uint), DType.UInt32 }, { typeof(ulong), DType.UInt64 },
#if NET8_0_OR_GREATER
            { typeof(Half), DType.Float16 },
#endif
        };

        internal Tensor() { }

        internal Tensor(IntPtr tensor) { SetHandle(tensor); }

        /// <summary>Returns a tensor with a copy of numbers, which are in row-major order. <paramref name="dims"/> are
        /// the sizes of its dimensions; without them, the tensor is a scalar. Throws Status.InvalidArgument if the
        /// number of elements does not match the sizes, and ArgumentException if T is not an element type.</summary>
        public static Tensor From<T>(T[] elements, params long[] dims) where T : struct
        {
            Need(elements, "elements");
            var type = TypeOf<T>();
            var pin = GCHandle.Alloc(elements, GCHandleType.Pinned);
            try
            {
                return FromPointer(type, pin.AddrOfPinnedObject(), elements.LongLength * SizeOfElement<T>(), dims);
            }
            finally
            {
                pin.Free();
            }
        }

        /// <summary>Returns a tensor of any type except String with a copy of <paramref name="data"/>, the bytes of its
        /// elements in row-major order. Throws Status.InvalidArgument if the number of bytes does not match the type
        /// and the sizes <paramref name="dims"/>, if a boolean is neither 0 nor 1, or for DType.String.</summary>
        public static Tensor FromBytes(DType type, byte[] data, params long[] dims)
        {
            Need(data, "data");
            var pin = GCHandle.Alloc(data, GCHandleType.Pinned);
            try
            {
                return FromPointer(type, pin.AddrOfPinnedObject(), data.LongLength, dims);
            }
            finally
            {
                pin.Free();
            }
        }

        /// <summary>Returns a tensor of any type except String with a copy of <paramref name="size"/> bytes of memory,
        /// which are its elements in row-major order. Throws the same as FromBytes, and ArgumentOutOfRangeException for
        /// a negative size.</summary>
        public static Tensor FromPointer(DType type, IntPtr data, long size, params long[] dims)
        {
            if (size < 0) throw new ArgumentOutOfRangeException("size");
            Tensor tensor;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_tensor_new((int)type, dims, (UIntPtr)dims.Length,
                data, (UIntPtr)(ulong)size, out tensor, out error), error);
            return tensor;
        }

        /// <summary>Returns a tensor that uses an array of numbers without copying it. The array is pinned, and must
        /// not be changed, until the tensor is disposed of and all runs that use it have ended. Arrays of bool are not
        /// supported. Throws the same as From.</summary>
        public static Tensor Borrow<T>(T[] elements, params long[] dims) where T : struct
        {
            Need(elements, "elements");
            var type = TypeOf<T>();
            var size = (UIntPtr)((ulong)elements.LongLength * (ulong)SizeOfElement<T>());
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

        // Release callback of Borrow, which the library calls on any thread when nothing uses the memory any more. The
        // static field keeps the delegate from being collected before.
        private static readonly Native.ReleaseFn Unpin = pin => GCHandle.FromIntPtr(pin).Free();

        /// <summary>Returns a tensor with copies of strings, which are in row-major order. Throws
        /// Status.InvalidArgument if the number of strings does not match the sizes <paramref name="dims"/>, and
        /// ArgumentException if a string contains NUL.</summary>
        public static Tensor FromStrings(IList<string> strings, params long[] dims)
        {
            Need(strings, "strings");
            using (var scratch = new Scratch())
            {
                Tensor tensor;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_tensor_new_strings(dims, (UIntPtr)dims.Length,
                    scratch.Texts(strings), IntPtr.Zero, (UIntPtr)strings.Count, out tensor, out error), error);
                return tensor;
            }
        }

        /// <summary>Type of the elements.</summary>
        public DType DType { get { return (DType)Native.optimize_tensor_dtype(this); } }

        /// <summary>Sizes of the dimensions; empty for a scalar.</summary>
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

        /// <summary>Returns a copy of the elements in row-major order. Throws InvalidOperationException if T does not
        /// correspond to DType, and ArgumentException if T is not an element type.</summary>
        public T[] Elements<T>() where T : struct
        {
            var type = TypeOf<T>();
            if (type != DType) throw new InvalidOperationException("the tensor holds " + DType + ", not " + type);
            var bytes = Bytes();
            var elements = new T[bytes.Length / SizeOfElement<T>()];
            if (typeof(T).IsPrimitive)
            {
                Buffer.BlockCopy(bytes, 0, elements, 0, bytes.Length);
                return elements;
            }
            var pin = GCHandle.Alloc(elements, GCHandleType.Pinned); // Half, which BlockCopy does not accept
            Marshal.Copy(bytes, 0, pin.AddrOfPinnedObject(), bytes.Length);
            pin.Free();
            return elements;
        }

        /// <summary>Returns a copy of the bytes of the elements; empty for a tensor of strings.</summary>
        public byte[] Bytes()
        {
            var bytes = new byte[checked((int)(ulong)Native.optimize_tensor_size(this))];
            if (bytes.Length > 0) Marshal.Copy(Native.optimize_tensor_data(this), bytes, 0, bytes.Length);
            GC.KeepAlive(this);
            return bytes;
        }

        /// <summary>Returns copies of the elements of a tensor of strings, in row-major order. Throws
        /// Status.InvalidArgument for a tensor of another type that has elements.</summary>
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

        internal static DType TypeOf<T>()
        {
            DType type;
            if (Types.TryGetValue(typeof(T), out type)) return type;
            throw new ArgumentException(typeof(T) + " is no element type: give its bytes to FromBytes");
        }
    }
}
