// Pruning options.

using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>How weights are selected for pruning. Magnitude: the smallest become zero. Random: random ones.
    /// Wanda: the smallest by magnitude times norm of the input. SparseGpt: those whose removal the other weights
    /// compensate. Structured: whole neurons, channels and heads are removed. Wanda and SparseGpt need a calibration
    /// text.</summary>
    public enum PruneMethod
    {
        /// <summary>Sets the weights with the smallest magnitude to zero.</summary>
        Magnitude = 0,

        /// <summary>Sets random weights to zero, by the seed.</summary>
        Random = 1,

        /// <summary>Sets, per output, the weights with the smallest magnitude times input norm to zero. Needs
        /// calibration data.</summary>
        Wanda = 2,

        /// <summary>Sets weights to zero whose error the rest of the row can compensate, and updates the rest. Needs
        /// calibration data.</summary>
        SparseGpt = 3,

        /// <summary>Removes neurons, channels and heads.</summary>
        Structured = 4,
    }

    /// <summary>Criterion of structured pruning for neurons, channels and heads.</summary>
    public enum Importance
    {
        /// <summary>By the sum of magnitudes.</summary>
        L1 = 0,

        /// <summary>By the root of the sum of squares.</summary>
        L2 = 1,

        /// <summary>By weights and by activations on the calibration text.</summary>
        Activation = 2,

        /// <summary>Randomly, by the seed.</summary>
        Random = 3,
    }

    /// <summary>Options of Context.Prune.</summary>
    public sealed class PruneOptions
    {
        /// <summary>Pruning method.</summary>
        public PruneMethod Method { get; set; }

        /// <summary>Fraction of zeros in each weight; 0 for 0.5, or that of the pattern.</summary>
        public double Sparsity { get; set; }

        /// <summary>With PatternOf, 2 and 4 for 2:4: at most 2 of each 4 adjacent weights remain.</summary>
        public uint PatternKeep { get; set; }

        /// <summary>Number of consecutive weights of the pattern; see `pattern_keep`.</summary>
        public uint PatternOf { get; set; }

        /// <summary>Magnitude and random: one threshold for all weights.</summary>
        public bool Global { get; set; }

        /// <summary>Also prune embedding tables.</summary>
        public bool Embeddings { get; set; }

        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>Structured: importance criterion.</summary>
        public Importance Importance { get; set; }

        /// <summary>Structured: sizes stay multiples of this.</summary>
        public uint RoundTo { get; set; }

        /// <summary>Structured: fit the weight after each cut on the calibration text.</summary>
        public bool Reconstruct { get; set; }

        /// <summary>Structured: number of layers to remove.</summary>
        public uint DropLayers { get; set; }

        /// <summary>Seed of random choices.</summary>
        public ulong Seed { get; set; }

        /// <summary>Weights with fewer elements are skipped; 0 for 1024.</summary>
        public ulong MinElements { get; set; }

        /// <summary>Names or globs of modules, weights or nodes; none for all MatMul, Gemm and Conv.</summary>
        [AllowNull, MaybeNull] public IList<string> TargetModules { get; set; }

        /// <summary>Names or globs to skip; takes precedence over TargetModules.</summary>
        [AllowNull, MaybeNull] public IList<string> Exclude { get; set; }

        /// <summary><c>GLOB=SPARSITY</c>, another sparsity for matches.</summary>
        [AllowNull, MaybeNull] public IList<string> Overrides { get; set; }

        /// <summary>Text for methods that use activations; null for none.</summary>
        [AllowNull, MaybeNull] public string Calibration { get; set; }

        /// <summary>Calibration data for inputs by name, instead of Calibration.</summary>
        [AllowNull, MaybeNull] public IDictionary<string, Tensor> CalibrationTensors { get; set; }

        /// <summary>Windows of the calibration text; 0 for 16, or 64 with Reconstruct.</summary>
        public uint CalibrationWindows { get; set; }

        /// <summary>Window length in tokens; 0 for 512, or the model's maximum.</summary>
        public uint CalibrationLength { get; set; }

        /// <summary>Folder for the pruned weights until they are saved; null for the system's.</summary>
        [AllowNull, MaybeNull] public string ScratchFolder { get; set; }

        /// <summary>Structured: indices of layers to remove, instead of DropLayers.</summary>
        [AllowNull, MaybeNull] public IList<uint> Layers { get; set; }

        /// <summary>Structured, instead of a sparsity: size in bytes to prune to, as little as needed.</summary>
        public ulong TargetSize { get; set; }

        /// <summary>Structured, instead of a sparsity: measured speed-up to prune for, as little as needed.</summary>
        public double TargetSpeedup { get; set; }

        internal Native.PruneOptions ToNative(Scratch scratch)
        {
            return new Native.PruneOptions
            {
                StructSize = Handle.SizeOf<Native.PruneOptions>(),
                Method = (int)Method,
                Sparsity = Sparsity,
                PatternKeep = PatternKeep,
                PatternOf = PatternOf,
                Global = Global ? 1u : 0,
                Embeddings = Embeddings ? 1u : 0,
                Threads = Threads,
                Importance = (int)Importance,
                RoundTo = RoundTo,
                Reconstruct = Reconstruct ? 1u : 0,
                DropLayers = DropLayers,
                CalibrationWindows = CalibrationWindows,
                CalibrationLength = CalibrationLength,
                Seed = Seed,
                MinElements = MinElements,
                TargetModules = scratch.Texts(TargetModules),
                TargetModuleCount = Scratch.Count(TargetModules),
                Exclude = scratch.Texts(Exclude),
                ExcludeCount = Scratch.Count(Exclude),
                Overrides = scratch.Texts(Overrides),
                OverrideCount = Scratch.Count(Overrides),
                Calibration = scratch.Text(Calibration),
                CalibrationSize = Calibration == null ? 0 : (ulong)Encoding.UTF8.GetByteCount(Calibration),
                ScratchFolder = scratch.Text(ScratchFolder),
                Layers = scratch.Numbers(Layers),
                LayerCount = Scratch.Count(Layers),
                TargetSize = TargetSize,
                TargetSpeedup = TargetSpeedup,
                CalibrationNames = scratch.Texts(CalibrationTensors == null ? null : CalibrationTensors.Keys),
                CalibrationTensors = scratch.Handles(CalibrationTensors == null ? null : CalibrationTensors.Values),
                CalibrationTensorCount = CalibrationTensors == null ? 0 : (ulong)CalibrationTensors.Count,
            };
        }
    }
}
