// Ensembles of models whose outputs are combined, and models that are merged into one.

using System;
using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>Method by which the outputs of the members are combined.</summary>
    public enum EnsembleMethod
    {
        /// <summary>Mean of the probabilities, of the normalized embeddings, or of the numeric outputs, weighted by
        /// Weights if they are given.</summary>
        Mean = 0,

        /// <summary>The same mean as with Mean, weighted by Weights, which are required.</summary>
        Weighted = 1,

        /// <summary>Softmax of the weighted mean of the logits, each divided by its temperature.</summary>
        Logits = 2,

        /// <summary>Normalized product of the probabilities, each to the power of its weight times the number of
        /// members.</summary>
        Product = 3,

        /// <summary>Maximum probability of each token, normalized.</summary>
        Max = 4,

        /// <summary>Median probability of each token, normalized.</summary>
        Median = 5,

        /// <summary>Sum of the weights of the members that rank the token or class first.</summary>
        Vote = 6,

        /// <summary>Probabilities of the first member divided by those of the second, for tokens whose probability in
        /// the first member is at least a tenth of the maximum, and 0 for other tokens; normalized.</summary>
        Contrastive = 7,

        /// <summary>The text, of those that the members generate, with the best score from all members.</summary>
        Rerank = 8,

        /// <summary>Concatenated embeddings, each normalized and multiplied by the square root of its weight.</summary>
        Concat = 9,
    }

    /// <summary>Task of the members of an ensemble.</summary>
    public enum EnsembleTask
    {
        /// <summary>Task that is detected from the members.</summary>
        AsMembers = 0,

        /// <summary>Text generation.</summary>
        Generate = 1,

        /// <summary>Text embedding.</summary>
        Embed = 2,

        /// <summary>Classification: one output with logits.</summary>
        Classify = 3,

        /// <summary>Other numeric outputs, which are combined element by element.</summary>
        Numbers = 4,
    }

    /// <summary>Options of Ensemble.Create.</summary>
    public sealed class EnsembleOptions
    {
        /// <summary>Combination method.</summary>
        public EnsembleMethod Method { get; set; }

        /// <summary>Task of the members.</summary>
        public EnsembleTask Task { get; set; }

        /// <summary>Whether the distribution of the first member is used alone where all members rank the same token
        /// first.</summary>
        public bool Gate { get; set; }

        /// <summary>Whether members may have different vocabularies; their distributions are then combined by the text
        /// of the tokens.</summary>
        public bool AllowDifferentVocabularies { get; set; }

        /// <summary>Rerank: number of texts that each member generates; 0 for 1.</summary>
        public uint Candidates { get; set; }

        /// <summary>Rerank: power of the length of a text by which its log-probability is divided; 0 for 1,
        /// a negative number for 0.</summary>
        public double LengthPenalty { get; set; }

        /// <summary>Weights of the members, at least 0, one per member; null for equal weights. The methods Max, Median
        /// and Contrastive use no weights, and refuse them.</summary>
        [AllowNull, MaybeNull] public IList<double> Weights { get; set; }

        /// <summary>Temperatures above 0, one per member, which divide the logits of the member; null for 1.</summary>
        [AllowNull, MaybeNull] public IList<double> Temperatures { get; set; }

        internal Native.EnsembleOptions ToNative(Scratch scratch)
        {
            return new Native.EnsembleOptions
            {
                StructSize = Handle.SizeOf<Native.EnsembleOptions>(),
                Method = (int)Method,
                Task = (int)Task,
                Gate = Gate ? 1u : 0,
                AllowDifferentVocabularies = AllowDifferentVocabularies ? 1u : 0,
                Candidates = Candidates,
                LengthPenalty = LengthPenalty,
                Weights = scratch.Doubles(Weights),
                WeightCount = Scratch.Count(Weights),
                Temperatures = scratch.Doubles(Temperatures),
                TemperatureCount = Scratch.Count(Temperatures),
            };
        }
    }

    /// <summary>Options of Context.Fit.</summary>
    public sealed class FitOptions
    {
        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Number of tokens per window; 0 for the limit of the members, up to 512.</summary>
        public uint ContextLength { get; set; }

        /// <summary>Number of tokens between the starts of two windows; 0 for half of a window.</summary>
        public uint Stride { get; set; }

        /// <summary>Number of tokens of the text to read; 0 for 8192.</summary>
        public ulong MaxTokens { get; set; }
    }

    /// <summary>Method by which the weights of several models are merged.</summary>
    public enum MergeMethod
    {
        /// <summary>Weighted mean of the weights.</summary>
        Linear = 0,

        /// <summary>Spherical linear interpolation between two models; the weight of the second is the position
        /// between them.</summary>
        Slerp = 1,

        /// <summary>TIES: the base model plus the mean of the models' largest changes from it that agree in
        /// sign.</summary>
        Ties = 2,
    }

    /// <summary>Options of Ensemble.Merge.</summary>
    public sealed class MergeOptions
    {
        /// <summary>Merge method.</summary>
        public MergeMethod Method { get; set; }

        /// <summary>Weights of the models, at least 0, one per model; null for equal weights.</summary>
        [AllowNull, MaybeNull] public IList<double> Weights { get; set; }

        /// <summary>Ties: the base model, from which the models were trained; required for this method.</summary>
        [AllowNull, MaybeNull] public Model Base { get; set; }

        /// <summary>Ties: share of each model's changes from Base to keep, at most 1; 0 for 0.2.</summary>
        public double Density { get; set; }

        /// <summary>Ties: factor of the mean change; 0 for 1.</summary>
        public double Scale { get; set; }

        /// <summary>Folder of the temporary file with the new weights; null for the system's temporary
        /// folder.</summary>
        [AllowNull, MaybeNull] public string ScratchFolder { get; set; }
    }

    /// <summary>An ensemble: several models, and a method that combines their outputs. It is immutable.</summary>
    public sealed class Ensemble : Handle
    {
        internal Ensemble() { }

        /// <summary>Report of Context.Fit as JSON, {"weights", "member_nll", "equal_nll", "fitted_nll", "gap",
        /// "tokens"}, if Context.Fit returned this ensemble; otherwise null.</summary>
        public Report Report { get; internal set; }

        /// <summary>Creates an ensemble of models, which may be disposed of before the ensemble. Throws
        /// Status.InvalidArgument if there are fewer than two models, if the models have different tasks, if their
        /// vocabularies differ and AllowDifferentVocabularies is false, or if the options do not fit the
        /// models.</summary>
        public static Ensemble Create(IList<Model> models, [AllowNull] EnsembleOptions options = null)
        {
            Need(models, "models");
            using (var scratch = new Scratch())
            {
                var given = (options ?? new EnsembleOptions()).ToNative(scratch);
                Ensemble ensemble;
                ErrorHandle error;
                int status = Native.optimize_ensemble_new(
                    scratch.Handles(models), (UIntPtr)models.Count, ref given, out ensemble, out error);
                OptimizeException.Check(status, error);
                return ensemble;
            }
        }

        /// <summary>Loads an ensemble and its members from a manifest: the file ensemble.json, or a folder that
        /// contains it. Throws Status.NotFound if there is no manifest; Status.InvalidModel if the manifest is damaged
        /// or has a newer version, or if the size of a member differs from that in the manifest; and otherwise the same
        /// as Context.Load for a member.</summary>
        public static Ensemble Load(string path)
        {
            Ensemble ensemble;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_load(Utf8.Bytes(path), out ensemble, out error), error);
            return ensemble;
        }

        /// <summary>Writes a manifest, ensemble.json with the paths of the members, to a folder, which is created if
        /// necessary. The members are not copied. Throws Status.InvalidArgument if a member exists only in memory. For
        /// members that do not generate text, it also throws the same as Fuse.</summary>
        public void Save(string folder)
        {
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_save(this, Utf8.Bytes(folder), out error), error);
        }

        /// <summary>Returns a description of the ensemble as JSON: {"method", "task", "members", "weights",
        /// "temperatures", "notes"}.</summary>
        public Report Inspect()
        {
            BufferHandle report;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_inspect(this, out report, out error), error);
            return new Report(report);
        }

        /// <summary>Returns a model that contains all members as branches and combines their outputs, with the report
        /// in Model.Report. The logits of a fused decoder are the logarithms of the combined probabilities. Throws
        /// Status.Unsupported if the members cannot be fused.</summary>
        public Model Fuse([AllowNull] Call call = null)
        {
            Model result = null;
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_fuse(
                this, ref native, out result, out report, out error));
            result.Report = new Report(report);
            return result;
        }

        /// <summary>Merges the weights of at least two models of one architecture, and returns a model of the size of
        /// one of the models, with the report in Model.Report. Throws Status.InvalidArgument if graphs or shapes of the
        /// models differ or an option is out of range, and Status.Unsupported if a weight that differs is
        /// quantized.</summary>
        public static Model Merge(IList<Model> models, [AllowNull] MergeOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(models, "models");
            options = options ?? new MergeOptions();
            using (var scratch = new Scratch())
            {
                var given = new Native.MergeOptions
                {
                    StructSize = SizeOf<Native.MergeOptions>(),
                    Method = (int)options.Method,
                    Weights = scratch.Doubles(options.Weights),
                    WeightCount = Scratch.Count(options.Weights),
                    Base = scratch.Handle(options.Base),
                    Density = options.Density,
                    Scale = options.Scale,
                    ScratchFolder = scratch.Text(options.ScratchFolder),
                };
                var list = scratch.Handles(models);
                Model result = null;
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_merge(
                    list, (UIntPtr)models.Count, ref given, ref native, out result, out report, out error));
                result.Report = new Report(report);
                return result;
            }
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr ensemble) { Native.optimize_ensemble_free(ensemble); }
    }
}
