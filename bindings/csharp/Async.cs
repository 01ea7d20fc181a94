// Methods that make long calls as tasks. Each task runs on a separate thread and not in the thread pool, because it can
// compute for seconds to hours. A task ends with the exception that the method without Async throws.

using System;
using System.Collections.Generic;
using System.Threading.Tasks;

namespace Optimize
{
    public sealed partial class Call
    {
        // Starts a call as a task. The token of the call also cancels a task that has not started yet.
        internal static Task<T> Start<T>([AllowNull] Call call, Func<T> body)
        {
            var cancellation = (call ?? new Call()).Cancellation;
            return Task.Factory.StartNew(body, cancellation,
                TaskCreationOptions.LongRunning | TaskCreationOptions.DenyChildAttach, TaskScheduler.Default);
        }
    }

    public sealed partial class Context
    {
        /// <summary>Loads a model like Load, as a task.</summary>
        public Task<Model> LoadAsync(string path, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Load(path, call));
        }

        /// <summary>Returns a quantized copy of a model like Quantize, as a task.</summary>
        public Task<Model> QuantizeAsync(
            Model model, [AllowNull] QuantizeOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Quantize(model, options, call));
        }

        /// <summary>Returns a pruned copy of a model like Prune, as a task.</summary>
        public Task<Model> PruneAsync(
            Model model, [AllowNull] PruneOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Prune(model, options, call));
        }

        /// <summary>Trains a student like Distill, as a task.</summary>
        public Task<Model> DistillAsync(
            Model teacher, [AllowNull] Model student, DistillOptions options, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Distill(teacher, student, options, call));
        }

        /// <summary>Compares two models like Benchmark, as a task.</summary>
        public Task<Report> BenchmarkAsync(
            Model original, Model result, [AllowNull] BenchmarkOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Benchmark(original, result, options, call));
        }

        /// <summary>Evaluates a model, or compares two, like Evaluate, as a task.</summary>
        public Task<Report> EvaluateAsync(
            Model model, string data, [AllowNull] EvaluateOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Evaluate(model, data, options, call));
        }

        /// <summary>Writes a package of a model like Compile, as a task.</summary>
        public Task<Report> CompileAsync(
            Model model, string path, [AllowNull] PackageOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Compile(model, path, options, call));
        }

        /// <summary>Builds a TensorRT engine like BuildTensorRt, as a task.</summary>
        public Task<Report> BuildTensorRtAsync(
            Model model, string path, [AllowNull] TensorRtOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => BuildTensorRt(model, path, options, call));
        }

        /// <summary>Creates a session of a model like CreateSession, as a task.</summary>
        public Task<Session> CreateSessionAsync(
            Model model, [AllowNull] SessionOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => CreateSession(model, options, call));
        }

        /// <summary>Creates a generator of a decoder like CreateGenerator, as a task.</summary>
        public Task<Generator> CreateGeneratorAsync(
            Model model, [AllowNull] GeneratorOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => CreateGenerator(model, options, call));
        }
    }

    public sealed partial class Model
    {
        /// <summary>Saves the model to a path like Save, as a task, not packed.</summary>
        public Task<Report> SaveAsync(
            string path, ExternalData externalData = ExternalData.Auto, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Save(path, externalData, call));
        }
    }

    public sealed partial class Session
    {
        /// <summary>Runs the session like Run, as a task.</summary>
        public Task<IDictionary<string, Tensor>> RunAsync(IDictionary<string, Tensor> inputs,
            [AllowNull] IList<string> outputs = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Run(inputs, outputs, call));
        }
    }

    public sealed partial class Embedder
    {
        /// <summary>Returns the vectors of texts like Embed, as a task.</summary>
        public Task<Tensor> EmbedAsync(IList<string> texts, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Embed(texts, call));
        }
    }

    public sealed partial class Classifier
    {
        /// <summary>Returns the scores of texts, or of pairs, like Classify, as a task.</summary>
        public Task<Tensor> ClassifyAsync(
            IList<string> texts, [AllowNull] IList<string> second = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Classify(texts, second, call));
        }
    }

    public sealed partial class Tagger
    {
        /// <summary>Returns the spans of texts like Tag, as a task.</summary>
        public Task<IList<IList<Span>>> TagAsync(IList<string> texts, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Tag(texts, call));
        }
    }

    public sealed partial class Generator
    {
        /// <summary>Generates text after each prompt like Generate, as a task.</summary>
        public Task<Report> GenerateAsync(
            IList<string> prompts, [AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Generate(prompts, options, call));
        }

        /// <summary>Generates text in all rows like Run, as a task.</summary>
        public Task<Report> RunAsync([AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            return Call.Start(call, () => Run(options, call));
        }
    }
}
