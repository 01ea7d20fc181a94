// Ensembles: several models whose outputs are combined, or that become one model.

using System;
using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>How the members' outputs are combined. Mean: the mean of the probabilities. Weighted: the weighted
    /// mean; needs Weights. Logits: the softmax of the mean of the logits. Product, Max, Median: of the
    /// probabilities. Vote: the fraction of the members that would choose the token. Contrastive: an expert's
    /// probabilities divided by an amateur's. Rerank: each member generates, all score, the best text is selected.
    /// Concat: concatenated embeddings.</summary>
    public enum EnsembleMethod
    {
        /// <summary>Mean of the probabilities; for embeddings, of the normalized vectors; for numeric outputs, of the
        /// numbers.</summary>
        Mean = 0,

        /// <summary>Weighted mean; needs weights.</summary>
        Weighted = 1,

        /// <summary>Softmax of the mean of the logits.</summary>
        Logits = 2,

        /// <summary>Normalized product of the probabilities.</summary>
        Product = 3,

        /// <summary>Maximum probability of each token, normalized.</summary>
        Max = 4,

        /// <summary>Median probability of each token, normalized.</summary>
        Median = 5,

        /// <summary>Share of the members that rank the token, or class, first.</summary>
        Vote = 6,

        /// <summary>Probabilities of the first member divided by those of the second, where the first considers a token
        /// plausible.</summary>
        Contrastive = 7,

        /// <summary>Each member generates texts, all members score them, and the best text is the result.</summary>
        Rerank = 8,

        /// <summary>Concatenated embeddings, each normalized and multiplied by the square root of its weight.</summary>
        Concat = 9,
    }

    /// <summary>Task of the members; AsMembers: the task of their models.</summary>
    public enum EnsembleTask
    {
        /// <summary>The task that is detected from the members.</summary>
        AsMembers = 0,

        /// <summary>Text generation.</summary>
        Generate = 1,

        /// <summary>Text embedding.</summary>
        Embed = 2,

        /// <summary>Classification: one output with logits.</summary>
        Classify = 3,

        /// <summary>Numeric outputs, which are combined element by element.</summary>
        Numbers = 4,
    }

    /// <summary>Options of Ensemble.Create.</summary>
    public sealed class EnsembleOptions
    {
        /// <summary>Combination method.</summary>
        public EnsembleMethod Method { get; set; }

        /// <summary>Task of the members.</summary>
        public EnsembleTask Task { get; set; }

        /// <summary>Combine only where members differ on the most probable token; otherwise use the first
        /// member.</summary>
        public bool Gate { get; set; }

        /// <summary>Whether members may have different vocabularies: the text of their tokens is combined.</summary>
        public bool AllowDifferentVocabularies { get; set; }

        /// <summary>Rerank: number of texts per member; 0 for 1.</summary>
        public uint Candidates { get; set; }

        /// <summary>Rerank: log-probabilities are divided by the length to this power; 0 for 1.</summary>
        public double LengthPenalty { get; set; }

        /// <summary>One weight per member; null for equal weights.</summary>
        [AllowNull, MaybeNull] public IList<double> Weights { get; set; }

        /// <summary>One temperature per member, above 0; null for 1.</summary>
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
        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>Window length in tokens; 0 for the members' maximum, up to 512.</summary>
        public uint ContextLength { get; set; }

        /// <summary>Distance of windows in tokens; 0 for half of a window.</summary>
        public uint Stride { get; set; }

        /// <summary>Tokens of the text to read; 0 for 8192.</summary>
        public ulong MaxTokens { get; set; }
    }

    /// <summary>How the weights of several models are merged. Linear: the mean. Slerp: a point on the arc between
    /// two. Ties: changes relative to a base whose signs agree.</summary>
    public enum MergeMethod
    {
        /// <summary>The (weighted) mean.</summary>
        Linear = 0,

        /// <summary>Spherical interpolation between two models, at the weight of the second.</summary>
        Slerp = 1,

        /// <summary>The largest changes of each model from a base model that agree in sign.</summary>
        Ties = 2,
    }

    /// <summary>Options of Ensemble.Merge.</summary>
    public sealed class MergeOptions
    {
        /// <summary>Merge method.</summary>
        public MergeMethod Method { get; set; }

        /// <summary>One weight per model; null for equal weights.</summary>
        [AllowNull, MaybeNull] public IList<double> Weights { get; set; }

        /// <summary>Ties only: the model that the others were fine-tuned from.</summary>
        [AllowNull, MaybeNull] public Model Base { get; set; }

        /// <summary>Ties: fraction of each model's changes to keep; 0 for 0.2.</summary>
        public double Density { get; set; }

        /// <summary>Ties: factor of the mean change; 0 for 1.</summary>
        public double Scale { get; set; }

        /// <summary>Folder for the new weights until they are saved; null for the system's.</summary>
        [AllowNull, MaybeNull] public string ScratchFolder { get; set; }
    }

    /// <summary>Models with a method that combines their outputs. Immutable.</summary>
    public sealed class Ensemble : Handle
    {
        internal Ensemble() { }

        /// <summary>The result of Context.Fit as JSON, if it made this ensemble; otherwise null.</summary>
        public Report Report { get; internal set; }

        /// <summary>Makes an ensemble of models, which may be disposed before it.</summary>
        public static Ensemble Create(IList<Model> models, [AllowNull] EnsembleOptions options = null)
        {
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

        /// <summary>Loads the ensemble of a manifest (ensemble.json or a folder with one) and its members.</summary>
        public static Ensemble Load(string path)
        {
            Ensemble ensemble;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_load(Utf8.Bytes(path), out ensemble, out error), error);
            return ensemble;
        }

        /// <summary>Saves a manifest into a folder. The members stay in their files.</summary>
        public void Save(string folder)
        {
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_save(this, Utf8.Bytes(folder), out error), error);
        }

        /// <summary>Returns {"method", "task", "members", "weights", "temperatures", "notes"} as JSON.</summary>
        public Report Inspect()
        {
            BufferHandle report;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_inspect(this, out report, out error), error);
            return new Report(report);
        }

        /// <summary>Returns one model whose branches are the members. The report is in Model.Report.</summary>
        public Model Fuse([AllowNull] Call call = null)
        {
            Model result = null;
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_fuse(
                this, ref native, out result, out report, out error));
            result.Report = new Report(report);
            return result;
        }

        /// <summary>Merges the weights of models with one architecture into a new model of the same size. The report
        /// is in Model.Report.</summary>
        public static Model Merge(IList<Model> models, [AllowNull] MergeOptions options = null,
            [AllowNull] Call call = null)
        {
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
