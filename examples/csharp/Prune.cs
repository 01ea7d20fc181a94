// Pruning: its options.

using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>How weights are chosen for pruning. Magnitude: the smallest become zero. Random: any. Wanda: the smallest
    /// by magnitude times norm of the input. SparseGpt: those whose loss the others make up for. Structured: whole
    /// neurons, channels and heads go. Wanda and SparseGpt need a calibration text.</summary>
    public enum PruneMethod { Magnitude = 0, Random = 1, Wanda = 2, SparseGpt = 3, Structured = 4 }

    /// <summary>By what structured pruning judges a neuron, channel or head.</summary>
    public enum Importance { L1 = 0, L2 = 1, Activation = 2, Random = 3 }

    /// <summary>Options of Context.Prune.</summary>
    public sealed class PruneOptions
    {
        public PruneMethod Method { get; set; }

        /// <summary>Share of each weight that is to be zero; 0 is 0.5, or what the pattern says.</summary>
        public double Sparsity { get; set; }

        /// <summary>With PatternOf, 2 and 4 for 2:4: of each 4 neighbours at most 2 stay.</summary>
        public uint PatternKeep { get; set; }

        public uint PatternOf { get; set; }

        /// <summary>Magnitude and random: one threshold for all weights.</summary>
        public bool Global { get; set; }

        /// <summary>Also prune embedding tables.</summary>
        public bool Embeddings { get; set; }

        /// <summary>0 is as the context says.</summary>
        public uint Threads { get; set; }

        /// <summary>Structured: by what units are judged.</summary>
        public Importance Importance { get; set; }

        /// <summary>Structured: sizes stay multiples of this.</summary>
        public uint RoundTo { get; set; }

        /// <summary>Structured: fit the weight behind each cut on the calibration text.</summary>
        public bool Reconstruct { get; set; }

        /// <summary>Structured: whole layers that go.</summary>
        public uint DropLayers { get; set; }

        /// <summary>Of random choices.</summary>
        public ulong Seed { get; set; }

        /// <summary>Weights with fewer elements are left; 0 is 1024.</summary>
        public ulong MinElements { get; set; }

        /// <summary>Names or globs of modules, weights or nodes; without any, all of MatMul, Gemm and Conv.</summary>
        public IList<string> TargetModules { get; set; }

        /// <summary>What is left as it is; wins over TargetModules.</summary>
        public IList<string> Exclude { get; set; }

        /// <summary><c>GLOB=SPARSITY</c>, another sparsity for what matches.</summary>
        public IList<string> Overrides { get; set; }

        /// <summary>A text for the methods that look at what flows through weights; null is none.</summary>
        public string Calibration { get; set; }

        /// <summary>Windows of the calibration text; 0 is 16, or 64 with Reconstruct.</summary>
        public uint CalibrationWindows { get; set; }

        /// <summary>Tokens of a window; 0 is 512, or as many as the model takes.</summary>
        public uint CalibrationLength { get; set; }

        /// <summary>For the pruned weights until they are saved; null is the system's.</summary>
        public string ScratchFolder { get; set; }

        /// <summary>Structured: numbers of layers that go, instead of DropLayers.</summary>
        public IList<uint> Layers { get; set; }

        /// <summary>Structured, instead of a sparsity: as little as it takes to come down to so many bytes.</summary>
        public ulong TargetSize { get; set; }

        /// <summary>Structured, instead of a sparsity: as little as it takes to be measured so many times as
        /// fast.</summary>
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
            };
        }
    }
}
