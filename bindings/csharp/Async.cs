// The long functions as tasks. Each runs on a thread of its own, because it computes for seconds to hours. A
// CancellationToken converts to a Call, and cancels the task.

using System;
using System.Collections.Generic;
using System.Threading.Tasks;

namespace Optimize
{
    public sealed partial class Call
    {
        internal static Task<T> Start<T>([AllowNull] Call call, Func<T> body)
        {
            var cancellation = (call ?? new Call()).Cancellation;
            return Task.Factory.StartNew(body, cancellation,
                TaskCreationOptions.LongRunning | TaskCreationOptions.DenyChildAttach, TaskScheduler.Default);
        }
    }

    public sealed partial class Context
    {
        /// <summary>Load as a task.</summary>
        public Task<Model> LoadAsync(string path, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Load(path, call));
        }

        /// <summary>Quantize as a task.</summary>
        public Task<Model> QuantizeAsync(
            Model model, [AllowNull] QuantizeOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Quantize(model, options, call));
        }

        /// <summary>Prune as a task.</summary>
        public Task<Model> PruneAsync(
            Model model, [AllowNull] PruneOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Prune(model, options, call));
        }

        /// <summary>Distill as a task.</summary>
        public Task<Model> DistillAsync(
            Model teacher, [AllowNull] Model student, DistillOptions options, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Distill(teacher, student, options, call));
        }

        /// <summary>Benchmark as a task.</summary>
        public Task<Report> BenchmarkAsync(
            Model original, Model result, [AllowNull] BenchmarkOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Benchmark(original, result, options, call));
        }

        /// <summary>Evaluate as a task.</summary>
        public Task<Report> EvaluateAsync(
            Model model, string data, [AllowNull] EvaluateOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Evaluate(model, data, options, call));
        }

        /// <summary>Compile as a task.</summary>
        public Task<Report> CompileAsync(
            Model model, string path, [AllowNull] PackageOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Compile(model, path, options, call));
        }

        /// <summary>BuildTensorRt as a task.</summary>
        public Task<Report> BuildTensorRtAsync(
            Model model, string path, [AllowNull] TensorRtOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => BuildTensorRt(model, path, options, call));
        }

        /// <summary>CreateSession as a task.</summary>
        public Task<Session> CreateSessionAsync(
            Model model, [AllowNull] SessionOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => CreateSession(model, options, call));
        }

        /// <summary>CreateGenerator as a task.</summary>
        public Task<Generator> CreateGeneratorAsync(
            Model model, [AllowNull] GeneratorOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => CreateGenerator(model, options, call));
        }
    }

    public sealed partial class Model
    {
        /// <summary>Save as a task.</summary>
        public Task<Report> SaveAsync(
            string path, ExternalData externalData = ExternalData.Auto, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Save(path, externalData, call));
        }
    }

    public sealed partial class Session
    {
        /// <summary>Run as a task.</summary>
        public Task<IDictionary<string, Tensor>> RunAsync(IDictionary<string, Tensor> inputs,
            [AllowNull] IList<string> outputs = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Run(inputs, outputs, call));
        }
    }

    public sealed partial class Embedder
    {
        /// <summary>Embed as a task.</summary>
        public Task<Tensor> EmbedAsync(IList<string> texts, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Embed(texts, call));
        }
    }

    public sealed partial class Classifier
    {
        /// <summary>Classify as a task.</summary>
        public Task<Tensor> ClassifyAsync(
            IList<string> texts, [AllowNull] IList<string> second = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Classify(texts, second, call));
        }
    }

    public sealed partial class Tagger
    {
        /// <summary>Tag as a task.</summary>
        public Task<IList<IList<Span>>> TagAsync(IList<string> texts, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Tag(texts, call));
        }
    }

    public sealed partial class Generator
    {
        /// <summary>Generate as a task.</summary>
        public Task<Report> GenerateAsync(
            IList<string> prompts, [AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Generate(prompts, options, call));
        }

        /// <summary>Run as a task.</summary>
        public Task<Report> RunAsync([AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Run(options, call));
        }
    }
}
