// The options of pruning.

using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>Pruning method, which selects the weights or units to prune.</summary>
    public enum PruneMethod
    {
        /// <summary>Sets the weights with the smallest magnitude to zero.</summary>
        Magnitude = 0,

        /// <summary>Sets random weights to zero, which Seed selects.</summary>
        Random = 1,

        /// <summary>Sets to zero, for each output, the weights with the smallest product of their magnitude and the
        /// norm of their input. Needs calibration data.</summary>
        Wanda = 2,

        /// <summary>Sets to zero the weights whose error the other weights of the row can compensate best, and updates
        /// the other weights. Needs calibration data.</summary>
        SparseGpt = 3,

        /// <summary>Removes neurons, channels and attention heads, so that tensors become smaller.</summary>
        Structured = 4,
    }

    /// <summary>Criterion by which structured pruning ranks the units: neurons, channels and attention heads.</summary>
    public enum Importance
    {
        /// <summary>Sum of the magnitudes of the weights of a unit.</summary>
        L1 = 0,

        /// <summary>Sum of the squares of the weights of a unit.</summary>
        L2 = 1,

        /// <summary>Weights of a unit, and its activations on the calibration data, which are required.</summary>
        Activation = 2,

        /// <summary>Random order, which depends on the seed.</summary>
        Random = 3,
    }

    /// <summary>Options of Context.Prune. Units are the neurons, channels and attention heads that structured pruning
    /// removes. Properties that are 0 or null have their defaults.</summary>
    public sealed class PruneOptions
    {
        /// <summary>Pruning method.</summary>
        public PruneMethod Method { get; set; }

        /// <summary>Share of the elements of each weight to set to zero, or of the units of each group to remove, above
        /// 0 and below 1. 0 for 0.5, or the share of the pattern, or nothing with DropLayers or Layers.</summary>
        public double Sparsity { get; set; }

        /// <summary>Maximum number of nonzero weights in each PatternOf consecutive weights: 2 and 4 for the pattern
        /// 2:4. If both are 0, there is no pattern.</summary>
        public uint PatternKeep { get; set; }

        /// <summary>Length of the pattern; see PatternKeep.</summary>
        public uint PatternOf { get; set; }

        /// <summary>Magnitude and random: whether one threshold applies to all weights together.</summary>
        public bool Global { get; set; }

        /// <summary>Whether embedding tables, and output layers that share such a table, are pruned as well.</summary>
        public bool Embeddings { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Structured: criterion by which the units are ranked.</summary>
        public Importance Importance { get; set; }

        /// <summary>Structured: number of which the remaining sizes are multiples; 0 for 1, 8 or 16, depending on the
        /// size.</summary>
        public uint RoundTo { get; set; }

        /// <summary>Structured: whether the weights that read the remaining units are fitted on the calibration
        /// data.</summary>
        public bool Reconstruct { get; set; }

        /// <summary>Structured: number of layers to remove: the least influential layers on the calibration data, or
        /// without data some layers of the later half.</summary>
        public uint DropLayers { get; set; }

        /// <summary>Seed of random choices.</summary>
        public ulong Seed { get; set; }

        /// <summary>Minimum number of elements of a weight to prune; 0 for 1024.</summary>
        public ulong MinElements { get; set; }

        /// <summary>Names or globs of the modules, weights or nodes to prune; null for all weights of MatMul,
        /// FusedMatMul, Gemm, Conv, ConvTranspose and Attention (com.microsoft). Weights of LSTM, GRU and RNN must be
        /// named. An embedding table that is named without a wildcard is pruned without Embeddings, too.</summary>
        [AllowNull, MaybeNull] public IList<string> TargetModules { get; set; }

        /// <summary>Names or globs of modules to leave unchanged, even if TargetModules matches them; null for
        /// none.</summary>
        [AllowNull, MaybeNull] public IList<string> Exclude { get; set; }

        /// <summary>Texts <c>GLOB=SPARSITY</c>, which set another sparsity for matching modules; the first match
        /// counts. Null for none.</summary>
        [AllowNull, MaybeNull] public IList<string> Overrides { get; set; }

        /// <summary>Calibration text for methods that measure activations, for which the model must have a tokenizer;
        /// null for none.</summary>
        [AllowNull, MaybeNull] public string Calibration { get; set; }

        /// <summary>Calibration tensors by the name of the input, instead of Calibration; null for none. The first
        /// dimension of each tensor counts samples.</summary>
        [AllowNull, MaybeNull] public IDictionary<string, Tensor> CalibrationTensors { get; set; }

        /// <summary>Number of windows of the calibration text; 0 for 16, or 64 with Reconstruct.</summary>
        public uint CalibrationWindows { get; set; }

        /// <summary>Number of tokens per window; 0 for 512, or the limit of the model if it is less.</summary>
        public uint CalibrationLength { get; set; }

        /// <summary>Folder of the temporary file with the pruned weights; null for the system's temporary
        /// folder.</summary>
        [AllowNull, MaybeNull] public string ScratchFolder { get; set; }

        /// <summary>Structured: indices of the layers to remove, as in the names of nodes, instead of DropLayers; null
        /// for none.</summary>
        [AllowNull, MaybeNull] public IList<uint> Layers { get; set; }

        /// <summary>Structured: maximum size of the result in bytes, instead of a sparsity; 0 for no limit.</summary>
        public ulong TargetSize { get; set; }

        /// <summary>Structured: minimum measured speed-up, at least 1, instead of a sparsity; 0 for no limit. Needs
        /// ONNX Runtime.</summary>
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
