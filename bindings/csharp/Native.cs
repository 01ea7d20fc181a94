// The declarations of the C interface for P/Invoke, which the other files of this folder use.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>The functions of optimize.h, under the names that they have in C.</summary>
    internal static partial class Native
    {
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int ProgressFn(IntPtr userData, IntPtr stage, ulong done, ulong total);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void ReleaseFn(IntPtr userData);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int TokenFn(IntPtr userData, IntPtr written);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int TrainingFn(IntPtr userData, IntPtr step);

        // The structs have the fields of the structs of optimize.h, in the same order. All are blittable: P/Invoke
        // passes them without conversion.

        [StructLayout(LayoutKind.Sequential)]
        internal struct ContextOptions
        {
            internal uint StructSize, Threads;
            internal IntPtr RuntimeLibrary, Log, LogUserData;
            internal int LogLevel;
            internal uint Reserved;
            internal ulong MemoryLimit;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Call { internal uint StructSize, TimeoutMs; internal IntPtr Progress, UserData, Cancel; }

        [StructLayout(LayoutKind.Sequential)]
        internal struct SaveOptions { internal uint StructSize; internal int ExternalData; internal uint Packed; }

        [StructLayout(LayoutKind.Sequential)]
        internal struct ValueInfo
        {
            internal uint StructSize;
            internal int DType;
            internal IntPtr Name;
            internal long Rank;
            internal IntPtr Dims, DimNames;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct SessionOptions
        {
            internal uint StructSize, Threads;
            internal int OptimizationLevel;
            internal uint DisablePrepacking, RoundActivations, TrustEngines;
            internal int Provider;
            internal uint DeviceId;
            internal IntPtr EngineCache;
            internal int Kernels, Precision;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct PackageCompileOptions
        {
            internal uint StructSize, Dynamic;
            internal ulong BatchMin, BatchMax;
            internal IntPtr DynamicShapes, Variants, Licence, SignKey;
            internal uint SingleFile, PortableOnly, Packed, Reserved;
            internal IntPtr Dimensions;
            internal ulong DimensionCount;
            internal IntPtr Engine, Lineage;
            internal ulong LineageCount;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct ChatOptions
        {
            internal uint StructSize, NoGenerationPrompt;
            internal IntPtr Tools, Variables;
            internal int Thinking;
            internal uint Reserved;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Dimension
        {
            internal uint StructSize, Index;
            internal IntPtr Input, Name;
            internal ulong Min, Max;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct TensorRtOptions
        {
            internal uint StructSize;
            internal int Precision, Backend;
            internal uint OptimizationLevel;
            internal ulong BatchSize, SequenceLength;
            internal IntPtr Dimensions, MinShapes, OptShapes, MaxShapes, Profiles, LibraryFolder, TimingCache;
            internal ulong Workspace;
            internal double MaxError;
            internal IntPtr ComputeCapabilities;
            internal ulong ComputeCapabilityCount;
            internal uint VersionCompatible, HardwareCompatible, Strip, Refit, Sparsity, Detailed, NoTf32, Force;
            internal uint RefuseMismatch, Threads;
            internal IntPtr Calibration, KeepFp32;
            internal ulong KeepFp32Count;
            internal uint GraphOnly, Reserved;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct PackageOpenOptions
        {
            internal uint StructSize, Reserved;
            internal IntPtr Variant, PublicKey;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct EncodeOptions { internal uint StructSize, NoSpecialTokens, MaxLength, Reserved; }

        [StructLayout(LayoutKind.Sequential)]
        internal struct DecodeOptions { internal uint StructSize, KeepSpecialTokens; }

        [StructLayout(LayoutKind.Sequential)]
        internal struct QuantizeOptions
        {
            internal uint StructSize;
            internal int Type;
            internal uint Bits;
            internal int ReduceRange;
            internal uint PerTensor, KeepEmbeddings, Threads, BlockSize, Symmetric;
            internal int ScaleType;
            internal uint AccuracyLevel, CalibrationWindows, CalibrationLength, NeverSlower;
            internal ulong MinElements;
            internal IntPtr Include;
            internal ulong IncludeCount;
            internal IntPtr Exclude;
            internal ulong ExcludeCount;
            internal IntPtr Overrides;
            internal ulong OverrideCount;
            internal IntPtr Calibration;
            internal ulong CalibrationSize;
            internal IntPtr ScratchFolder;
            internal int Algorithm, CalibrationMethod;
            internal double Percentile, SmoothQuant, MaxQualityLoss;
            internal ulong TargetSize;
            internal IntPtr CalibrationNames, CalibrationTensors;
            internal ulong CalibrationTensorCount;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct PruneOptions
        {
            internal uint StructSize;
            internal int Method;
            internal double Sparsity;
            internal uint PatternKeep, PatternOf, Global, Embeddings, Threads;
            internal int Importance;
            internal uint RoundTo, Reconstruct, DropLayers, CalibrationWindows, CalibrationLength, Reserved;
            internal ulong Seed, MinElements;
            internal IntPtr TargetModules;
            internal ulong TargetModuleCount;
            internal IntPtr Exclude;
            internal ulong ExcludeCount;
            internal IntPtr Overrides;
            internal ulong OverrideCount;
            internal IntPtr Calibration;
            internal ulong CalibrationSize;
            internal IntPtr ScratchFolder;
            internal IntPtr Layers;
            internal ulong LayerCount, TargetSize;
            internal double TargetSpeedup;
            internal IntPtr CalibrationNames, CalibrationTensors;
            internal ulong CalibrationTensorCount;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct BenchmarkOptions
        {
            internal uint StructSize, Runs, Warmup, Threads, BatchSize, SequenceLength, MaxMilliseconds, Seed;
            internal IntPtr Texts;
            internal ulong TextCount;
            internal IntPtr Shapes;
            internal ulong ShapeCount;
            internal IntPtr Values;
            internal ulong ValueCount;
            internal int Provider;
            internal uint DeviceId;
            internal IntPtr EngineCache;
            internal uint TrustEngines, Reserved;
            internal IntPtr InputNames, InputTensors;
            internal ulong InputCount;
            internal int Kernels, Precision;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct TensorRtOpenOptions
        {
            internal uint StructSize, Trust, DeviceId, Reserved;
            internal IntPtr ModelSha256, LibraryFolder;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct GeneratorOptions
        {
            internal uint StructSize, Threads, RoundActivations, Reserved;
            internal int Provider;
            internal uint DeviceId;
            internal IntPtr EngineCache;
            internal int Kernels, Precision;
            internal IntPtr Draft;
            internal uint DraftLookup, DraftMax;
            internal int KvCacheType;
            internal uint Reserved2;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Written
        {
            internal uint StructSize, Row;
            internal long Token;
            internal IntPtr Text;
            internal ulong TextSize;
            internal float Logprob;
            internal int FinishReason;
            internal double Entropy, MutualInformation, Agreement;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct EnsembleOptions
        {
            internal uint StructSize;
            internal int Method, Task;
            internal uint Gate, AllowDifferentVocabularies, Candidates;
            internal double LengthPenalty;
            internal IntPtr Weights;
            internal ulong WeightCount;
            internal IntPtr Temperatures;
            internal ulong TemperatureCount;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct FitOptions
        {
            internal uint StructSize, Threads, ContextLength, Stride;
            internal ulong MaxTokens;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct MergeOptions
        {
            internal uint StructSize;
            internal int Method;
            internal IntPtr Weights;
            internal ulong WeightCount;
            internal IntPtr Base;
            internal double Density, Scale;
            internal IntPtr ScratchFolder;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct DistillOptions
        {
            internal uint StructSize, Epochs;
            internal uint JsonLines, BatchSize, SequenceLength, GradientAccumulationSteps;
            internal double LearningRate, Temperature;
            internal int Divergence, Schedule;
            internal double LogitsWeight, LabelsWeight, HiddenWeight, CosineWeight, RelationsWeight;
            internal double WarmupRatio, WeightDecay, MaxGradNorm, ValidationRatio, TimeLimit;
            internal ulong MaxSteps, EvaluateEvery, CheckpointEvery, Seed;
            internal IntPtr Freeze;
            internal ulong FreezeCount;
            internal IntPtr StudentLayers, Checkpoint;
            internal uint Resume, Threads;
            internal IntPtr Training, TrainingUserData;
            internal IntPtr TeacherCache;
            internal ulong TeacherTopK;
            internal int Provider;
            internal uint DeviceId;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct TrainingStep
        {
            internal uint StructSize, IsValidation, Epoch, TotalEpochs;
            internal ulong Step, TotalSteps;
            internal double Loss, GradientNorm, LearningRate, TokensPerSecond, Seconds, SecondsLeft;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct GenerateOptions
        {
            internal uint StructSize, MaxNewTokens, MaxLength, TopK;
            internal float Temperature, TopP, MinP, RepetitionPenalty, PresencePenalty, FrequencyPenalty;
            internal uint NoRepeatNgramSize, Logprobs;
            internal ulong Seed;
            internal IntPtr Stop;
            internal ulong StopCount;
            internal IntPtr OnToken, UserData;
            internal uint Rendered, IgnoreEos;
            internal IntPtr StopTokens;
            internal ulong StopTokenCount;
            internal uint ModelSampling, Reserved;
        }

        // The functions take handles as objects of their classes, so that P/Invoke keeps them from being freed during
        // the call.

        [DllImport(Library)] internal static extern IntPtr optimize_version();
        [DllImport(Library)] internal static extern uint optimize_version_number();
        [DllImport(Library)] internal static extern IntPtr optimize_status_name(int status);

        [DllImport(Library)] internal static extern IntPtr optimize_error_message(ErrorHandle error);
        [DllImport(Library)] internal static extern IntPtr optimize_error_place(ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_error_free(IntPtr error);

        [DllImport(Library)] internal static extern IntPtr optimize_buffer_data(BufferHandle buffer);
        [DllImport(Library)] internal static extern UIntPtr optimize_buffer_size(BufferHandle buffer);
        [DllImport(Library)] internal static extern void optimize_buffer_free(IntPtr buffer);

        [DllImport(Library)] internal static extern int optimize_cancel_new(
            out CancelHandle cancel, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_cancel_fire(
            CancelHandle cancel, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_cancel_free(IntPtr cancel);

        [DllImport(Library)] internal static extern int optimize_context_new(
            ref ContextOptions options, out Context context, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_context_runtime_version(
            Context context, out IntPtr version, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_context_free(IntPtr context);

        [DllImport(Library)] internal static extern int optimize_model_load(
            Context context, byte[] path, ref Call call, out Model model, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_load_memory(
            Context context, byte[] data, UIntPtr size, ref Call call, out Model model, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_save(
            Model model, byte[] path, ref SaveOptions options, ref Call call, out BufferHandle report,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_inspect(
            Model model, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_tokenizer(
            Model model, out Tokenizer tokenizer, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_render_chat(
            Model model, byte[] messages, out BufferHandle rendered, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_model_input_count(Model model);
        [DllImport(Library)] internal static extern int optimize_model_input(
            Model model, UIntPtr index, ref ValueInfo info, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_model_output_count(Model model);
        [DllImport(Library)] internal static extern int optimize_model_output(
            Model model, UIntPtr index, ref ValueInfo info, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_model_free(IntPtr model);

        [DllImport(Library)] internal static extern int optimize_model_plan(
            Context context, Model model, ref QuantizeOptions options, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_apply_chat_template(
            Model model, byte[] messages, ref ChatOptions options, out BufferHandle prompt, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_quantize(
            Context context, Model model, ref QuantizeOptions options, ref Call call,
            out Model result, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_prune(
            Context context, Model model, ref PruneOptions options, ref Call call,
            out Model result, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_distill(
            Context context, Model teacher, Model student, byte[] text, UIntPtr size, ref DistillOptions options,
            ref Call call, out Model result, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_merge(
            IntPtr models, UIntPtr count, ref MergeOptions options, ref Call call,
            out Model result, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_new(
            IntPtr models, UIntPtr count, ref EnsembleOptions options, out Ensemble ensemble, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_load(
            byte[] path, out Ensemble ensemble, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_save(
            Ensemble ensemble, byte[] folder, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_inspect(
            Ensemble ensemble, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_fit(
            Context context, Ensemble ensemble, byte[] text, UIntPtr size, ref FitOptions options, ref Call call,
            out Ensemble fitted, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_fuse(
            Ensemble ensemble, ref Call call, out Model result, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_ensemble_generator(
            Context context, Ensemble ensemble, ref GeneratorOptions options, ref Call call,
            out Generator generator, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_ensemble_free(IntPtr ensemble);
        [DllImport(Library)] internal static extern int optimize_model_benchmark(
            Context context, Model original, Model result, Tokenizer tokenizer, ref BenchmarkOptions options,
            ref Call call, out BufferHandle report, out ErrorHandle error);

        [DllImport(Library)] internal static extern int optimize_tensor_new(
            int dtype, long[] dims, UIntPtr rank, IntPtr data, UIntPtr size, out Tensor tensor, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tensor_borrow(
            int dtype, long[] dims, UIntPtr rank, IntPtr data, UIntPtr size, ReleaseFn release, IntPtr userData,
            out Tensor tensor, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tensor_new_strings(
            long[] dims, UIntPtr rank, IntPtr strings, IntPtr sizes, UIntPtr count, out Tensor tensor,
                out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tensor_dtype(Tensor tensor);
        [DllImport(Library)] internal static extern UIntPtr optimize_tensor_rank(Tensor tensor);
        [DllImport(Library)] internal static extern IntPtr optimize_tensor_dims(Tensor tensor);
        [DllImport(Library)] internal static extern IntPtr optimize_tensor_data(Tensor tensor);
        [DllImport(Library)] internal static extern UIntPtr optimize_tensor_size(Tensor tensor);
        [DllImport(Library)] internal static extern int optimize_tensor_string(
            Tensor tensor, UIntPtr index, out IntPtr data, out UIntPtr size, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_tensor_free(IntPtr tensor);

        [DllImport(Library)] internal static extern int optimize_session_new(
            Context context, Model model, ref SessionOptions options, ref Call call,
            out Session session, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_session_run(
            Session session, IntPtr inputNames, IntPtr[] inputs, UIntPtr inputCount, IntPtr outputNames,
            UIntPtr outputCount, ref Call call, [Out] IntPtr[] outputs, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_session_input_count(Session session);
        [DllImport(Library)] internal static extern int optimize_session_input(
            Session session, UIntPtr index, ref ValueInfo info, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_session_output_count(Session session);
        [DllImport(Library)] internal static extern int optimize_session_output(
            Session session, UIntPtr index, ref ValueInfo info, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_session_free(IntPtr session);

        [DllImport(Library)] internal static extern int optimize_package_compile(
            Context context, Model model, IntPtr path, ref PackageCompileOptions options, ref Call call,
            out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_build_tensorrt(
            Context context, Model model, IntPtr path, ref TensorRtOptions options, ref Call call,
            out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tensorrt_check(
            Context context, IntPtr path, Model model, uint trust, ref Call call,
            out BufferHandle manifest, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tensorrt_open(
            Context context, IntPtr path, ref TensorRtOpenOptions options, ref Call call,
            out Session session, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_engine(
            Context context, Package package, ref TensorRtOpenOptions options, ref Call call,
            out Session session, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_model_benchmark_engine(
            Context context, Model original, IntPtr path, Tokenizer tokenizer, ref TensorRtOpenOptions engineOptions,
            ref BenchmarkOptions options, ref Call call, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_open(
            IntPtr path, ref PackageOpenOptions options, out Package package, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_model(
            Package package, out Model model, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_session(
            Context context, Package package, ref SessionOptions options, ref Call call,
            out Session session, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_tokenizer(
            Package package, out Tokenizer tokenizer, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_generator(
            Context context, Package package, ref GeneratorOptions options, ref Call call, out Generator generator,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_inspect(
            Context context, Package package, out BufferHandle json, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_package_verify(
            Package package, IntPtr publicKey, ref Call call, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_package_free(IntPtr package);

        [DllImport(Library)] internal static extern int optimize_generator_new(
            Context context, Model model, ref GeneratorOptions options, ref Call call,
            out Generator generator, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_generator_generate(
            Generator generator, IntPtr prompts, UIntPtr[] sizes, UIntPtr count, ref GenerateOptions options,
            ref Call call, out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_generator_append(
            Generator generator, UIntPtr row, byte[] text, UIntPtr size, ref GenerateOptions options,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_generator_run(
            Generator generator, ref GenerateOptions options, ref Call call, out BufferHandle report,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_generator_reset(
            Generator generator, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_generator_free(IntPtr generator);

        [DllImport(Library)] internal static extern int optimize_tokenizer_load(
            byte[] path, out Tokenizer tokenizer, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tokenizer_encode(
            Tokenizer tokenizer, IntPtr texts, UIntPtr[] sizes, UIntPtr count, ref EncodeOptions options,
            out Tensor ids, out Tensor attentionMask, out Tensor typeIds, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tokenizer_decode(
            Tokenizer tokenizer, long[] ids, UIntPtr count, ref DecodeOptions options, out BufferHandle text,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_tokenizer_vocabulary_size(Tokenizer tokenizer);
        [DllImport(Library)] internal static extern void optimize_tokenizer_free(IntPtr tokenizer);
    }

    /// <summary>An error object of the library, from which OptimizeException.Check makes an exception.</summary>
    internal sealed class ErrorHandle : Handle
    {
        protected override void Free(IntPtr error) { Native.optimize_error_free(error); }
    }

    /// <summary>A buffer of the library that contains text.</summary>
    internal sealed class BufferHandle : Handle
    {
        protected override void Free(IntPtr buffer) { Native.optimize_buffer_free(buffer); }

        internal string Read()
        {
            return Utf8.Read(Native.optimize_buffer_data(this), (long)Native.optimize_buffer_size(this));
        }

        /// <summary>Returns the text, and frees the buffer.</summary>
        internal string Take()
        {
            using (this) return Read();
        }
    }

    /// <summary>A cancel token of the library, which cancels the calls to which it is passed.</summary>
    internal sealed class CancelHandle : Handle
    {
        protected override void Free(IntPtr cancel) { Native.optimize_cancel_free(cancel); }
    }

    /// <summary>Conversion of strings to and from UTF-8, the encoding of the library on every system.</summary>
    internal static class Utf8
    {
        // Throws ArgumentException for an unpaired surrogate, which another encoding would silently replace.
        private static readonly UTF8Encoding Strict = new UTF8Encoding(false, true);

        /// <summary>Returns the UTF-8 of a text with a terminating NUL. Throws ArgumentException for a text with
        /// NUL.</summary>
        internal static byte[] Bytes(string text)
        {
            if (text == null) throw new ArgumentNullException("text");
            if (text.IndexOf('\0') >= 0) throw new ArgumentException("the text has a NUL inside: C would cut it there");
            return Strict.GetBytes(text + '\0');
        }

        internal static byte[] BytesWithoutEnd(string text) { return Strict.GetBytes(text); }

        internal static string Read(IntPtr text)
        {
            if (text == IntPtr.Zero) return "";
            long size = 0;
            while (Marshal.ReadByte(text, checked((int)size)) != 0) size++;
            return Read(text, size);
        }

        internal static string Read(IntPtr text, long size)
        {
            var bytes = new byte[size];
            Marshal.Copy(text, bytes, 0, bytes.Length);
            return Encoding.UTF8.GetString(bytes);
        }
    }

    /// <summary>Unmanaged memory for the texts and lists that are arguments of one call, and the use of the handles in
    /// these lists. Dispose frees the memory and ends the use.</summary>
    internal sealed class Scratch : IDisposable
    {
        private readonly List<IntPtr> blocks = new List<IntPtr>();
        private readonly List<SafeHandle> held = new List<SafeHandle>();

        internal IntPtr Text(string text) { return text == null ? IntPtr.Zero : Copy(Utf8.Bytes(text)); }

        internal static ulong Count(ICollection<string> texts) { return texts == null ? 0 : (ulong)texts.Count; }

        /// <summary>Returns an array of pointers to copies of texts; NULL for null or an empty list.</summary>
        internal IntPtr Texts(ICollection<string> texts)
        {
            if (texts == null || texts.Count == 0) return IntPtr.Zero;
            var copies = new List<IntPtr>();
            foreach (var text in texts) copies.Add(Copy(Utf8.Bytes(text)));
            return Pointers(copies);
        }

        internal static ulong Count(ICollection<uint> numbers) { return numbers == null ? 0 : (ulong)numbers.Count; }

        /// <summary>Returns a copy of numbers; NULL for null or an empty list.</summary>
        internal IntPtr Numbers(ICollection<uint> numbers)
        {
            if (numbers == null || numbers.Count == 0) return IntPtr.Zero;
            var bytes = new List<byte>();
            foreach (var number in numbers) bytes.AddRange(BitConverter.GetBytes(number));
            return Copy(bytes.ToArray());
        }

        /// <summary>Returns an array of optimize_dimension_t; NULL for null or an empty list.</summary>
        internal IntPtr Dimensions(ICollection<Dimension> ranges)
        {
            if (ranges == null || ranges.Count == 0) return IntPtr.Zero;
            int size = Marshal.SizeOf(typeof(Native.Dimension)), at = 0;
            var block = Copy(new byte[size * ranges.Count]);
            foreach (var range in ranges)
            {
                var raw = new Native.Dimension
                {
                    StructSize = (uint)size,
                    Index = range.Index,
                    Input = Text(range.Input),
                    Name = Text(range.Name),
                    Min = range.Min,
                    Max = range.Max,
                };
                Marshal.StructureToPtr(raw, IntPtr.Add(block, size * at++), false);
            }
            return block;
        }

        /// <summary>Returns an array of pointers to copies of texts, which may contain NUL, and the sizes of the copies
        /// in bytes.</summary>
        internal IntPtr Prompts(IList<string> texts, out UIntPtr[] sizes)
        {
            var copies = new List<IntPtr>();
            sizes = new UIntPtr[texts.Count];
            for (int i = 0; i < texts.Count; i++)
            {
                var bytes = Utf8.BytesWithoutEnd(texts[i]);
                sizes[i] = (UIntPtr)bytes.Length;
                copies.Add(Copy(bytes));
            }
            return Pointers(copies);
        }

        internal static ulong Count(ICollection<long> ids) { return ids == null ? 0 : (ulong)ids.Count; }

        /// <summary>Returns a copy of ids; NULL for null or an empty list.</summary>
        internal IntPtr Ids(ICollection<long> ids)
        {
            if (ids == null || ids.Count == 0) return IntPtr.Zero;
            var bytes = new List<byte>();
            foreach (var id in ids) bytes.AddRange(BitConverter.GetBytes(id));
            return Copy(bytes.ToArray());
        }

        internal static ulong Count(ICollection<double> numbers) { return numbers == null ? 0 : (ulong)numbers.Count; }

        /// <summary>Returns a copy of numbers; NULL for null or an empty list.</summary>
        internal IntPtr Doubles(ICollection<double> numbers)
        {
            if (numbers == null || numbers.Count == 0) return IntPtr.Zero;
            var bytes = new List<byte>();
            foreach (var number in numbers) bytes.AddRange(BitConverter.GetBytes(number));
            return Copy(bytes.ToArray());
        }

        /// <summary>Returns an array of handles, which stay valid until Dispose; NULL for null or an empty
        /// list.</summary>
        internal IntPtr Handles<T>(ICollection<T> handles) where T : SafeHandle
        {
            if (handles == null || handles.Count == 0) return IntPtr.Zero;
            var pointers = new List<IntPtr>();
            foreach (var handle in handles) pointers.Add(Handle(handle));
            return Pointers(pointers);
        }

        /// <summary>Returns the pointer of a handle, which stays valid until Dispose; NULL for null.</summary>
        internal IntPtr Handle(SafeHandle handle)
        {
            if (handle == null) return IntPtr.Zero;
            bool holds = false;
            handle.DangerousAddRef(ref holds);
            held.Add(handle);
            return handle.DangerousGetHandle();
        }

        public void Dispose()
        {
            foreach (var handle in held) handle.DangerousRelease();
            held.Clear();
            foreach (var block in blocks) Marshal.FreeHGlobal(block);
            blocks.Clear();
        }

        private IntPtr Pointers(List<IntPtr> pointers)
        {
            var list = Allocate(pointers.Count * IntPtr.Size);
            Marshal.Copy(pointers.ToArray(), 0, list, pointers.Count);
            return list;
        }

        private IntPtr Copy(byte[] bytes)
        {
            var copy = Allocate(bytes.Length);
            Marshal.Copy(bytes, 0, copy, bytes.Length);
            return copy;
        }

        private IntPtr Allocate(int size)
        {
            var block = Marshal.AllocHGlobal(Math.Max(size, 1));
            blocks.Add(block);
            return block;
        }
    }
}
