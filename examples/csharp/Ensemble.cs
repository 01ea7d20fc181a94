// Ensembles: several models that answer together, or become one.

using System;
using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>How the members' answers become one. Mean: the mean of the probabilities. Weighted: that with weights,
    /// which must be given. Logits: the softmax of the mean of the logits. Product, Max, Median: of the probabilities.
    /// Vote: the share of the members that would take the token. Contrastive: an expert's probabilities divided by an
    /// amateur's. Rerank: each member writes, all score, the best is taken. Concat: embeddings one after
    /// another.</summary>
    public enum EnsembleMethod
    {
        Mean = 0, Weighted = 1, Logits = 2, Product = 3, Max = 4, Median = 5, Vote = 6, Contrastive = 7, Rerank = 8,
        Concat = 9,
    }

    /// <summary>What the members do; AsMembers: as they say themselves.</summary>
    public enum EnsembleTask { AsMembers = 0, Generate = 1, Embed = 2, Classify = 3, Numbers = 4 }

    /// <summary>Options of Ensemble.Create.</summary>
    public sealed class EnsembleOptions
    {
        public EnsembleMethod Method { get; set; }

        public EnsembleTask Task { get; set; }

        /// <summary>Combine only where members differ on the most probable token; else the first speaks.</summary>
        public bool Gate { get; set; }

        /// <summary>Members may have different vocabularies: the text of their tokens is combined.</summary>
        public bool AllowDifferentVocabularies { get; set; }

        /// <summary>Rerank: texts that each member writes; 0 is 1.</summary>
        public uint Candidates { get; set; }

        /// <summary>Rerank: log-probabilities are divided by the length to this power; 0 is 1.</summary>
        public double LengthPenalty { get; set; }

        /// <summary>One for each member; null is equal.</summary>
        public IList<double> Weights { get; set; }

        /// <summary>One for each member, above 0; null is 1.</summary>
        public IList<double> Temperatures { get; set; }

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
        /// <summary>0 is as the context says.</summary>
        public uint Threads { get; set; }

        /// <summary>Tokens of a window; 0 is what the members take, up to 512.</summary>
        public uint ContextLength { get; set; }

        /// <summary>Tokens from one window to the next; 0 is half of a window.</summary>
        public uint Stride { get; set; }

        /// <summary>Of the text to read; 0 is 8192.</summary>
        public ulong MaxTokens { get; set; }
    }

    /// <summary>How weights of several models become one. Linear: the mean. Slerp: a point on the arc between two. Ties:
    /// changes against a base that agree in sign.</summary>
    public enum MergeMethod { Linear = 0, Slerp = 1, Ties = 2 }

    /// <summary>Options of Ensemble.Merge.</summary>
    public sealed class MergeOptions
    {
        public MergeMethod Method { get; set; }

        /// <summary>One for each model; null is equal.</summary>
        public IList<double> Weights { get; set; }

        /// <summary>Ties, and only there: the model that the others were made from.</summary>
        public Model Base { get; set; }

        /// <summary>Ties: share of each model's changes that is kept; 0 is 0.2.</summary>
        public double Density { get; set; }

        /// <summary>Ties: factor of the mean change; 0 is 1.</summary>
        public double Scale { get; set; }

        /// <summary>For the new weights until they are saved; null is the system's.</summary>
        public string ScratchFolder { get; set; }
    }

    /// <summary>Models that answer together, and how. Never changes.</summary>
    public sealed class Ensemble : Handle
    {
        internal Ensemble() { }

        /// <summary>What was found, if Context.Fit made this ensemble: JSON; else null.</summary>
        public string Report { get; internal set; }

        /// <summary>Makes an ensemble of models, which may be disposed before it.</summary>
        public static Ensemble Create(IList<Model> models, EnsembleOptions options = null)
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

        /// <summary>Loads the ensemble of a manifest, ensemble.json or a folder with one, and its members.</summary>
        public static Ensemble Load(string path)
        {
            Ensemble ensemble;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_load(Utf8.Bytes(path), out ensemble, out error), error);
            return ensemble;
        }

        /// <summary>Saves a manifest into a folder. The members stay where they are.</summary>
        public void Save(string folder)
        {
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_save(this, Utf8.Bytes(folder), out error), error);
        }

        /// <summary>{"method", "task", "members", "weights", "temperatures", "notes"} as JSON.</summary>
        public string Inspect()
        {
            BufferHandle report;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_ensemble_inspect(this, out report, out error), error);
            return report.Take();
        }

        /// <summary>Makes one model whose branches are the members. The report is in Model.Report.</summary>
        public Model Fuse(Call call = null)
        {
            Model result = null;
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_fuse(
                this, ref native, out result, out report, out error));
            result.Report = report.Take();
            return result;
        }

        /// <summary>Merges the weights of models of one architecture into a new model of the same size. The report is in
        /// Model.Report.</summary>
        public static Model Merge(IList<Model> models, MergeOptions options = null, Call call = null)
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
                result.Report = report.Take();
                return result;
            }
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr ensemble) { Native.optimize_ensemble_free(ensemble); }
    }
}
