// The tests of the binding, except those in the other files of this folder. They need OPTIMIZE_TEST_DEPS and
// OPTIMIZE_TEST_TMP, which tests/run.sh sets.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Optimize;
using static Tap;

internal static class Tests
{
    private static string folder, temporary;
    private static Context context;
    private static Model model;
    private static Tokenizer tokenizer;

    private static int Main()
    {
        var deps = Environment.GetEnvironmentVariable("OPTIMIZE_TEST_DEPS") ?? "target/deps";
        temporary = Environment.GetEnvironmentVariable("OPTIMIZE_TEST_TMP") ?? Path.GetTempPath();
        folder = Path.Combine(deps, "models/paraphrase-MiniLM-L3-v2");
        context = Context.Create(new ContextOptions { Threads = 1 });
        model = context.Load(folder);
        tokenizer = model.LoadTokenizer();

        return Tap.Run(
            Versions, Inspect, LoadFromMemory, QuantizeSaveReloadRun, QuantizeOptionsReachTheLibrary,
            PruneSavePackedReload, DistillAStudent, WeightsInBlocks, StaticRanges,
            SaveBesideTheModel, BenchmarkGivesJson, Errors, ArgumentsThatNeverReachTheLibrary, TokenizerRoundTrip,
            TensorRoundTrip, TensorOfStrings, BorrowedTensor, CancelFromAnotherThread, CancelFromProgress,
            CancelledTask, TimeoutEndsACall, ExceptionInProgress, CancelledSaveLeavesNoFile, UseAfterDispose,
            DisposeInAnyOrder, DisposeDuringACall, ASessionForEachThread, ThreadsShareASession,
            GarbageIsCollected, CollectorDuringCalls, EvaluateGivesJson, TextsBecomeVectorsAndScores, EnginesAreRefusedWithTheReason,
            EnginesInModelsOfStrangersAreRefused);
    }

    /// <summary>Runs a session on a text, and returns the sentence embedding: the float32 output with two
    /// dimensions.</summary>
    private static float[] Embed(Session session, string text)
    {
        using (var tokens = tokenizer.Encode(new[] { text }))
        {
            float[] embedding = null;
            foreach (var output in session.Run(tokens.Inputs(session.Inputs())).Values)
            {
                using (output)
                    if (output.DType == DType.Float32 && output.Dims.Length == 2) embedding = output.Elements<float>();
            }
            return embedding;
        }
    }

    private static double Cosine(float[] a, float[] b)
    {
        double ab = 0, aa = 0, bb = 0;
        for (int i = 0; i < a.Length; i++)
        {
            ab += (double)a[i] * b[i];
            aa += (double)a[i] * a[i];
            bb += (double)b[i] * b[i];
        }
        return ab / Math.Sqrt(aa * bb);
    }

    private static void EnginesInModelsOfStrangersAreRefused()
    {
        var file = Convert.FromBase64String( // y = EPContext(x), float32[1]
            "CAg6RwogCgF4EgF5IglFUENvbnRleHQ6DWNvbS5taWNyb3NvZnQSAWdaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQK" +
            "AggBQgIQEUIRCg1jb20ubWljcm9zb2Z0EAE=");
        var options = new SessionOptions { Execution = new Execution { Provider = Provider.Cuda } };
        using (var strange = context.Load(file))
        {
            Fails(Status.Untrusted, "EPContext", () => context.CreateSession(strange, options));
            options.TrustEngines = true; // the model contains no engine: the provider reports this
            var e = Throws<OptimizeException>(() => context.CreateSession(strange, options));
            Check(e.Status != Status.Untrusted && e.Status != Status.InvalidArgument, e.Message);
        }
    }

    private static void EnginesAreRefusedWithTheReason()
    {
        string path = Path.Combine(temporary, "cs.engine"), packed = Path.Combine(temporary, "cs-engine.package");
        var libraries = Path.GetFullPath(Path.Combine(folder, "../../tensorrt-rtx"));
        context.BuildTensorRt(
            model, path, new TensorRtOptions { BatchSize = 1, SequenceLength = 16, Library = libraries });
        context.Compile(model, packed, new PackageOptions { Dynamic = true, PortableOnly = true, Engine = path });
        using (var package = Package.Open(packed))
        {
            var ways = new Action<TensorRtOpenOptions>[]
            {
                options => context.OpenTensorRt(path, options).Dispose(),
                options => context.CreateEngine(package, options).Dispose(),
                options => context.BenchmarkEngine(model, path, options),
            };
            foreach (var open in ways)
            {
                var options = new TensorRtOpenOptions { Library = libraries };
                Fails(Status.Untrusted, "trust", () => open(null));
                Fails(Status.Untrusted, "trust", () => open(options));
                options.Trust = true;
                options.ModelSha256 = new string('0', 64);
                Fails(Status.Mismatch, "another model", () => open(options));
                options.ModelSha256 = null;
                options.DeviceId = 4096; // no machine has so many
                Fails(Status.DeviceMissing, "", () => open(options));
            }
        }
    }

    /// <summary>Makes a call that would take minutes if nothing ended it.</summary>
    private static void Long(Call call)
    {
        context.Benchmark(model, model, new BenchmarkOptions { Runs = 1000000, MaxMilliseconds = 1000000 }, call);
    }

    private sealed class Reporter : IProgress<Progress>
    {
        internal Action<Progress> Action;
        internal int Calls;

        public void Report(Progress progress)
        {
            Calls++;
            Action(progress);
        }
    }

    private static void Versions()
    {
        Check(Context.LibraryVersion.Split('.').Length == 3, Context.LibraryVersion);
        Check(Context.LibraryVersionNumber > 0, "version number");
        Check(context.RuntimeVersion().Split('.').Length == 3, context.RuntimeVersion());
    }

    private static void Inspect()
    {
        var report = Json.Parse(model.Inspect());
        Check(Json.Number(report, "parameters") > 1e6, "parameters");
        Check(Json.Number(report, "operators", "MatMul") > 0, "no MatMul");
        var inputs = model.Inputs();
        Check(inputs.Any(i => i.Name == "input_ids") && inputs.Any(i => i.Name == "attention_mask"), "inputs");
        foreach (var i in inputs)
            Check(i.DType == DType.Int64 && i.Dims.Length == 2 && i.Dims[0] == -1 && i.DimNames.Length == 2, i.Name);
        Check(model.Outputs().Count > 0 && model.Outputs()[0].Name.Length > 0, "outputs");
    }

    private static void LoadFromMemory()
    {
        using (var copy = context.Load(File.ReadAllBytes(Path.Combine(folder, "model.onnx"))))
        {
            Check(Json.Number(Json.Parse(copy.Inspect()), "parameters") > 1e6, "parameters");
            Fails(Status.NotFound, "", () => copy.LoadTokenizer());
        }
    }

    private static void QuantizeSaveReloadRun()
    {
        var stages = new List<string>();
        var reporter = new Reporter { Action = p => stages.Add(p.Stage) };
        var path = Path.Combine(temporary, "größer-kleiner.onnx"); // UTF-8 on the way
        using (var small = context.Quantize(model, null, new Call { Progress = reporter }))
        {
            Check(stages.Count > 0 && stages[0] == "quantize", "stages " + string.Join(" ", stages));
            Check(Json.Number(Json.Parse(small.Report), "summary", "nodes_quantized") > 0, small.Report);
            small.Save(path);
        }
        long before = new FileInfo(Path.Combine(folder, "model.onnx")).Length, after = new FileInfo(path).Length;
        Check(after * 10 < before * 3, after + " of " + before);
        using (var small = context.Load(path))
        using (var a = context.CreateSession(model))
        using (var b = context.CreateSession(small))
        {
            foreach (var text in new[] { "The ferry leaves at noon.", "How many eggs?", "Grüße aus München." })
            {
                double cosine = Cosine(Embed(a, text), Embed(b, text));
                Check(cosine > 0.99, cosine + " for " + text);
            }
        }
    }

    private static void PruneSavePackedReload()
    {
        var options = new PruneOptions
        {
            Sparsity = 0.3, Embeddings = true, Overrides = new[] { "query=0.5" }, ScratchFolder = temporary,
        };
        var path = Path.Combine(temporary, "sparse.onnx.packed");
        using (var sparse = context.Prune(model, options))
        {
            Check(Json.Number(Json.Parse(sparse.Report), "summary", "modules", "query", "sparsity") == 0.5, sparse.Report);
            sparse.Save(path, packed: true);
        }
        long before = new FileInfo(Path.Combine(folder, "model.onnx")).Length, after = new FileInfo(path).Length;
        Check(after * 10 < before * 7, after + " of " + before);
        using (var again = context.Load(path)) Check(again.Inputs().Count == model.Inputs().Count, "inputs");
        Fails(Status.InvalidArgument, "query (3)",
            () => context.Prune(model, new PruneOptions { TargetModules = new[] { "qery" } }));
        Fails(Status.InvalidArgument, "calibration", () => context.Prune(model, new PruneOptions { Method = PruneMethod.Wanda }));
        var layers = new PruneOptions { Method = PruneMethod.Structured, Layers = new uint[] { 1 } };
        using (var small = context.Prune(model, layers)) Check(small.Report.Json.Contains("\"layers_after\": 2"), small.Report);
        var goal = new PruneOptions { Method = PruneMethod.Structured, TargetSize = 1000 };
        Fails(Status.GateNotMet, "bytes are left", () => context.Prune(model, goal));
    }

    private static void DistillAStudent()
    {
        var text = new System.Text.StringBuilder();
        for (int i = 0; i < 80; i++) text.Append("Line ").Append(i * 31).Append(" speaks of the weather.\n");
        var options = new DistillOptions
        {
            Text = text.ToString(), StudentLayers = "layers:2", MaxSteps = 3, SequenceLength = 12, LearningRate = 3e-4,
        };
        ulong steps = 0, measurements = 0;
        options.Training = step =>
        {
            if (step.IsValidation) measurements++;
            else Check(step.Step == ++steps && step.TotalSteps == 3 && step.Loss > 0 && step.LearningRate > 0, "step " + steps);
        };
        options.TeacherCache = System.IO.Path.Combine(temporary, "answers.csharp");
        using (var student = context.Distill(model, null, options))
        {
            Check(steps == 3 && measurements >= 2 && System.IO.File.Exists(options.TeacherCache), "steps " + steps);
            int told = 0;
            options.Training = step => { told++; throw new InvalidOperationException("enough"); };
            try
            {
                context.Distill(model, null, options).Dispose();
                Check(false, "an exception of the callback did not end the training");
            }
            catch (InvalidOperationException e)
            {
                Check(e.Message == "enough" && told == 1, e.Message + " after " + told);
            }
            options.Training = null;
            Check(Json.Number(Json.Parse(student.Report), "summary", "steps") == 3, student.Report);
            options.StudentLayers = null;
            using (var again = context.Distill(model, student, options))
                Check(again.Outputs().Count == model.Outputs().Count, "outputs");
        }
        options.StudentLayers = "layers:0";
        Fails(Status.InvalidArgument, "layers:0", () => context.Distill(model, null, options));
    }

    private static void QuantizeOptionsReachTheLibrary()
    {
        var options = new QuantizeOptions
        {
            ReduceRange = ReduceRange.On, PerTensor = true, Exclude = new[] { "*attention*", "*embedding*" },
            ScratchFolder = temporary,
        };
        using (var small = context.Quantize(model, options))
        {
            var summary = Json.Find(Json.Parse(small.Report), "summary");
            Check(Json.Number(summary, "nodes_quantized") > 0 && Json.Number(summary, "nodes_left") > 8, small.Report);
        }
        Fails(Status.InvalidArgument, "5", () => context.Quantize(model, new QuantizeOptions { Bits = 5 }));
    }

    private static void WeightsInBlocks()
    {
        var options = new QuantizeOptions
        {
            Type = QuantizeType.WeightOnly, BlockSize = 64, Symmetric = true, ScaleType = ScaleType.Float16,
            AccuracyLevel = 1, ScratchFolder = temporary,
        };
        using (var small = context.Quantize(model, options))
        {
            foreach (var part in new[]
            {
                "4 bits in blocks of 64, symmetric, 4.25 bits per weight", "\"scale_type\": \"float16\"", "\"accuracy_level\": 1",
            })
                Check(small.Report.Json.Contains(part), part + " is not in " + small.Report);
            var summary = Json.Find(Json.Parse(small.Report), "summary");
            Check(Json.Number(summary, "bytes_after") < 0.15 * Json.Number(summary, "bytes_before"), small.Report);
        }
        options.BlockSize = 48;
        Fails(Status.InvalidArgument, "block_size is 48", () => context.Quantize(model, options));
        options.BlockSize = 0;
        options.ScaleType = (ScaleType)3;
        Fails(Status.InvalidArgument, "scale_type is 3", () => context.Quantize(model, options));
    }

    private static void StaticRanges()
    {
        var data = new Dictionary<string, Tensor>();
        data["input_ids"] = Tensor.From(new long[] { 101, 2003, 2158, 5983, 2833, 102 }, 1, 6);
        data["attention_mask"] = Tensor.From(new long[] { 1, 1, 1, 1, 1, 1 }, 1, 6);
        var options = new QuantizeOptions { Type = QuantizeType.Static, CalibrationTensors = data };
        using (var small = context.Quantize(model, options))
            Check(small.Report.Json.Contains("MatMulIntegerToFloat"), small.Report);
        data["nothing"] = data["input_ids"];
        Fails(Status.NotFound, "nothing", () => context.Quantize(model, options));
        data.Remove("nothing");
        foreach (var tensor in data.Values) tensor.Dispose();
    }

    private static void SaveBesideTheModel()
    {
        var path = Path.Combine(temporary, "outside.onnx");
        var saved = (List<object>)Json.Find(Json.Parse(model.Save(path, ExternalData.Always)), "files");
        Check(saved.Count == 2, saved.Count + " files");
        context.Load(path).Dispose();
    }

    private static void BenchmarkGivesJson()
    {
        var options = new BenchmarkOptions
        {
            Tokenizer = tokenizer, Runs = 10, Warmup = 1, SequenceLength = 32,
            Texts = new[] { "One text.", "And another." },
        };
        using (var small = context.Quantize(model))
        {
            var report = Json.Parse(context.Benchmark(model, small, options));
            Check(Json.Number(report, "benchmark", "runs") >= 5, "runs");
            Check(Json.Number(report, "benchmark", "speedup", "median") > 0, "speedup");
            Check(Json.Number(report, "benchmark", "size_ratio") > 3, "size_ratio");
            Check(Json.Number(report, "quality", "cosine") > 0.99, "cosine");
            Check(Json.Number(report, "quality", "samples") == 2, "samples");
            Fails(Status.InvalidArgument, "", () =>
                context.Benchmark(model, small, new BenchmarkOptions { Texts = new[] { "x" } }));
        }
    }

    private static void TextsBecomeVectorsAndScores()
    {
        var options = new EmbedderOptions { Dimensions = 64, Normalize = true };
        using (var embedder = context.CreateEmbedder(model, options))
        using (var vectors = embedder.Embed(new[] { "A man is eating food.", "A man eats." }))
        {
            var found = vectors.Elements<float>();
            double norm = 0;
            for (int i = 0; i < 64; i++) norm += found[i] * found[i];
            Check(found.Length == 128 && Math.Abs(norm - 1) < 1e-4, found.Length + " elements, " + norm);
            Fails(Status.InvalidArgument, "no text", () => embedder.Embed(new string[0]));
        }
        options.PromptName = "query";
        Fails(Status.NotFound, "query", () => context.CreateEmbedder(model, options));
        Fails(Status.Unsupported, "logits", () => context.CreateClassifier(model));
        using (var classes = context.Load("tests/fixtures/encoders/bert-classify"))
        using (var words = Tokenizer.Load("tests/fixtures/sentences/model/tokenizer.json"))
        using (var classifier = context.CreateClassifier(classes, new ClassifierOptions { Tokenizer = words }))
        using (var scores = classifier.Classify(new[] { "hello" }, new[] { "world ab" }))
        {
            Check(string.Join(",", classifier.Labels()) == "LABEL_0,LABEL_1,LABEL_2", "labels");
            Check(Math.Abs(scores.Elements<float>()[0] - 0.218442) < 1e-5, "scores of transformers");
        }
    }

    private static void EvaluateGivesJson()
    {
        const string lines = "A man is eating food.\nGrüße aus München.\n\nNot this one.\n";
        var options = new EvaluateOptions { Task = EvaluateTask.Embedding, Against = model, MaxTexts = 2 };
        var report = Json.Parse(context.Evaluate(model, lines, options));
        Check((string)Json.Find(report, "quality", "task") == "embedding", "task");
        Check(Json.Number(report, "quality", "cosine_min") > 0.999999, "cosine");
        Check(Json.Number(report, "quality", "texts") == 2, "texts");
        Check(Json.Find(report, "output", "sha256") != null, "the other model");
        options.Tokenizer = tokenizer;
        Check(context.Evaluate(model, lines, options).Json.Contains("nearest_kept"), "with a tokenizer");
        var seen = new Reporter { Action = progress => Check(progress.Stage != "", "stage") };
        const string rows = "food,Eating bread.\nfood,A soup.\nmoney,The stock market fell.\nmoney,Prices rose.\n";
        options = new EvaluateOptions { Task = EvaluateTask.Probe, TestShare = 0.5, Penalty = 0.25, Seed = 7 };
        report = Json.Parse(context.Evaluate(model, rows, options, new Call { Progress = seen }));
        Check(Json.Number(report, "quality", "train_samples") == 2, "train_samples");
        Check(Json.Number(report, "options", "penalty") == 0.25, "penalty");
        Check(Json.Number(report, "options", "seed") == 7, "seed");
        Check(seen.Calls > 0, "no progress");
        Fails(Status.InvalidArgument, "line 2", () => context.Evaluate(model, "food,Bread\nmoney", options));
        Fails(Status.InvalidArgument, "against", () =>
            context.Evaluate(model, lines, new EvaluateOptions { Task = EvaluateTask.Embedding }));
        Fails(Status.Unsupported, "", () =>
            context.Evaluate(model, lines, new EvaluateOptions { Task = EvaluateTask.Perplexity }));
        Fails(Status.InvalidArgument, "99", () =>
            context.Evaluate(model, lines, new EvaluateOptions { Task = (EvaluateTask)99 }));
        var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Throws<OperationCanceledException>(() => context.Evaluate(model, rows, options, cancelled.Token));
    }

    private static void Errors()
    {
        var broken = Path.Combine(temporary, "broken.onnx");
        File.WriteAllText(broken, "this is no model");
        Fails(Status.NotFound, "/nowhere/x.onnx", () => context.Load("/nowhere/x.onnx"));
        Fails(Status.InvalidModel, "broken.onnx", () => context.Load(broken));
        Fails(Status.InvalidModel, "", () => context.Load(new byte[0]));
        Fails(Status.NotFound, "/nowhere", () => Tokenizer.Load("/nowhere"));
        Fails(Status.InvalidArgument, "", () => tokenizer.Encode(new string[0]));
        Fails(Status.InvalidArgument, "ids", () => tokenizer.Decode(new long[] { -1 }));
        Fails(Status.InvalidArgument, "12 bytes", () => Tensor.From(new[] { 1, 2 }, 3));
        Fails(Status.InvalidArgument, "99", () => model.Save(broken, (ExternalData)99));
        using (var session = context.CreateSession(model))
        using (var wrong = Tensor.From(new[] { 1f }, 1, 1))
        {
            Fails(Status.InvalidArgument, "input", () => session.Run(new Dictionary<string, Tensor>()));
            var inputs = new Dictionary<string, Tensor> { { "input_ids", wrong }, { "attention_mask", wrong } };
            Fails(Status.InvalidArgument, "input_ids", () => session.Run(inputs));
        }
        var e = Throws<OptimizeException>(() => context.Load(broken));
        Check(e.Place.Contains("broken.onnx"), "the place is " + e.Place);
    }

    private static void ArgumentsThatNeverReachTheLibrary()
    {
        Throws<ArgumentNullException>(() => context.Load((string)null));
        Throws<ArgumentNullException>(() => context.Quantize(null));
        Throws<ArgumentNullException>(() => context.CreateClassifier(null));
        Throws<ArgumentNullException>(() => context.CreateTagger(null));
        Throws<ArgumentNullException>(() => context.Load((byte[])null));
        Throws<ArgumentNullException>(() => context.Table(null, "folder"));
        Throws<ArgumentNullException>(() => Ensemble.Create(null));
        Throws<ArgumentNullException>(() => Ensemble.Merge(null));
        Throws<ArgumentNullException>(() => Tensor.From<float>(null, 1));
        Throws<ArgumentNullException>(() => Tensor.FromStrings(null, 1));
        using (var embedder = context.CreateEmbedder(model))
            Throws<ArgumentNullException>(() => embedder.Embed(null));
        var own = Context.Create();
        Throws<ArgumentNullException>(() => own.CreateEmbedder(null));
        own.Dispose();
        // P/Invoke would throw only after it has counted a use of the context, which would then stay open.
        Check(own.IsClosed, "the context survives Dispose");
        Throws<ArgumentException>(() => context.Load("a\0b"));
        Throws<ArgumentException>(() => context.Load("a lone surrogate: \ud800"));
        Throws<ArgumentException>(() => Tensor.From(new[] { DateTime.Now }, 1));
        var past = new Call { Timeout = TimeSpan.FromSeconds(-1) };
        Throws<ArgumentOutOfRangeException>(() => context.Load(folder, past));
    }

    private static void TokenizerRoundTrip()
    {
        const string text = "a smaller model answers sooner";
        using (var same = Tokenizer.Load(folder))
            Check(same.VocabularySize == 30522 && tokenizer.VocabularySize == 30522, same.VocabularySize + " tokens");
        using (var tokens = tokenizer.Encode(new[] { text, "short" }))
        {
            var ids = tokens.Ids.Elements<long>();
            var mask = tokens.AttentionMask.Elements<long>();
            int length = (int)tokens.Ids.Dims[1];
            Check(tokens.Ids.Dims[0] == 2 && ids[0] == 101, "ids");
            Check(mask[0] == 1 && mask[mask.Length - 1] == 0, "mask");
            Check(tokenizer.Decode(ids.Take(length).ToArray()) == text, "another text came back");
            Check(tokenizer.Decode(ids.Take(length).ToArray(), true) != text, "no special tokens");
        }
        using (var tokens = tokenizer.Encode(new[] { text }, false, 3))
            Check(tokens.Ids.Dims[1] == 3 && tokens.Ids.Elements<long>()[0] != 101, "special tokens, or too many");
        tokenizer.Encode(new[] { "a NUL \0 is fine in a text", "" }).Dispose();
    }

    private static void RoundTrip<T>(DType type, params T[] elements) where T : struct
    {
        using (var tensor = Tensor.From(elements, elements.Length, 1))
        {
            Check(tensor.DType == type, tensor.DType + ", not " + type);
            Check(tensor.Dims.SequenceEqual(new long[] { elements.Length, 1 }), type + " has another shape");
            Check(tensor.Elements<T>().SequenceEqual(elements), type + " came back changed");
        }
    }

    private static void TensorRoundTrip()
    {
        RoundTrip(DType.Float32, 1.5f, float.NegativeInfinity);
        RoundTrip(DType.Float64, Math.PI, double.MaxValue);
        RoundTrip(DType.Int8, sbyte.MinValue, sbyte.MaxValue);
        RoundTrip(DType.Int16, short.MinValue);
        RoundTrip(DType.Int32, int.MinValue, 7);
        RoundTrip(DType.Int64, long.MaxValue, -1L);
        RoundTrip(DType.UInt8, byte.MaxValue);
        RoundTrip(DType.UInt16, ushort.MaxValue);
        RoundTrip(DType.UInt32, uint.MaxValue);
        RoundTrip(DType.UInt64, ulong.MaxValue);
        RoundTrip(DType.Bool, true, false, true);
        using (var scalar = Tensor.From(new[] { 7f }))
            Check(scalar.Dims.Length == 0 && scalar.Elements<float>()[0] == 7, "scalar");
        using (var empty = Tensor.From(new long[0], 0, 3))
            Check(empty.Dims.Length == 2 && empty.Elements<long>().Length == 0, "empty");
        using (var packed = Tensor.FromBytes(DType.Int4, new byte[] { 0x21, 3 }, 3))
        {
            Check(packed.Bytes().SequenceEqual(new byte[] { 0x21, 3 }), "packed");
            Throws<InvalidOperationException>(() => packed.Elements<float>());
        }
    }

    private static void TensorOfStrings()
    {
        var words = new[] { "", "größer", "日本", "last" };
        using (var tensor = Tensor.FromStrings(words, 2, 2))
            Check(tensor.DType == DType.String && tensor.Strings().SequenceEqual(words), "strings came back changed");
    }

    private static void BorrowedTensor()
    {
        var weak = BorrowAndDrop();
        Settle();
        Check(!weak.IsAlive, "the array is still pinned");
        Fails(Status.InvalidArgument, "bytes", () => Tensor.Borrow(new[] { 1L }, 2));
    }

    private static WeakReference BorrowAndDrop()
    {
        WeakReference weak = null;
        // Mono scans stacks conservatively. On a separate thread, whose stack ends with it, no reference to the array
        // remains.
        var thread = new Thread(() =>
        {
            var elements = new long[1 << 20];
            elements[5] = 42;
            weak = new WeakReference(elements);
            using (var tensor = Tensor.Borrow(elements, 1 << 20))
            {
                GC.Collect();
                Check(tensor.Elements<long>()[5] == 42, "another array");
            }
        });
        thread.Start();
        thread.Join();
        return weak;
    }

    private static void CancelFromAnotherThread()
    {
        using (var stop = new CancellationTokenSource())
        {
            var fired = DateTime.MaxValue;
            var timer = new Timer(_ =>
            {
                fired = DateTime.UtcNow;
                stop.Cancel();
            }, null, 300, Timeout.Infinite);
            var e = Throws<OperationCanceledException>(() => Long(stop.Token));
            timer.Dispose();
            Check(e.CancellationToken == stop.Token, "another token");
            Check(((OptimizeException)e.InnerException).Status == Status.Cancelled, "another status");
            Check(DateTime.UtcNow - fired < TimeSpan.FromSeconds(2), "late: " + (DateTime.UtcNow - fired));
            Throws<OperationCanceledException>(() => context.Load(folder, stop.Token));
        }
    }

    private static void CancelFromProgress()
    {
        using (var stop = new CancellationTokenSource())
        {
            var reporter = new Reporter { Action = p => stop.Cancel() };
            var call = new Call { Cancellation = stop.Token, Progress = reporter };
            Throws<OperationCanceledException>(() => Long(call));
            Check(reporter.Calls == 1, reporter.Calls + " calls of progress");
        }
    }

    private static void CancelledTask()
    {
        using (var stop = new CancellationTokenSource(200))
        {
            var task = Task.Run(() => Long(stop.Token), stop.Token);
            Throws<AggregateException>(() => task.Wait());
            Check(task.IsCanceled, "the task is " + task.Status);
        }
    }

    private static void TimeoutEndsACall()
    {
        Fails(Status.Timeout, "", () => Long(new Call { Timeout = TimeSpan.FromMilliseconds(200) }));
    }

    private static void ExceptionInProgress()
    {
        var reporter = new Reporter { Action = p => { throw new FormatException("out of progress"); } };
        var e = Throws<FormatException>(() => Long(new Call { Progress = reporter }));
        Check(e.Message == "out of progress", e.Message);
    }

    private static void CancelledSaveLeavesNoFile()
    {
        var empty = Directory.CreateDirectory(Path.Combine(temporary, "empty")).FullName;
        using (var stop = new CancellationTokenSource())
        {
            var call = new Call { Cancellation = stop.Token, Progress = new Reporter { Action = p => stop.Cancel() } };
            var path = Path.Combine(empty, "x.onnx");
            Throws<OperationCanceledException>(() => model.Save(path, ExternalData.Auto, call));
        }
        Check(!Directory.EnumerateFileSystemEntries(empty).Any(), "it left a file");
    }

    private static void UseAfterDispose()
    {
        var other = Context.Create();
        var tensor = Tensor.From(new[] { 1f });
        for (int i = 0; i < 2; i++) // twice is fine
        {
            other.Dispose();
            tensor.Dispose();
        }
        Throws<ObjectDisposedException>(() => other.Load(folder));
        Throws<ObjectDisposedException>(() => tensor.Elements<float>());
    }

    private static void DisposeInAnyOrder()
    {
        var other = Context.Create();
        var loaded = other.Load(folder);
        using (var session = other.CreateSession(loaded))
        {
            loaded.Dispose();
            other.Dispose();
            Check(Embed(session, "still here").Length == 384, "embedding");
        }
    }

    private static void DisposeDuringACall()
    {
        var other = Context.Create();
        var loaded = other.Load(folder);
        var reporter = new Reporter();
        reporter.Action = p =>
        {
            other.Dispose();
            loaded.Dispose();
        };
        using (var small = other.Quantize(loaded, null, new Call { Progress = reporter }))
            Check(reporter.Calls > 0 && small.Inspect().Json.Length > 0, "inspect");
        Throws<ObjectDisposedException>(() => loaded.Inspect());
    }

    private static void ASessionForEachThread()
    {
        float[][] expected;
        using (var session = context.CreateSession(model))
            expected = Enumerable.Range(0, 8).Select(i => Embed(session, "sentence number " + i)).ToArray();
        Task.WaitAll(Enumerable.Range(0, 8).Select(i => Task.Factory.StartNew(() =>
        {
            using (var session = context.CreateSession(model))
                for (int n = 0; n < 10; n++)
                    Check(Cosine(Embed(session, "sentence number " + i), expected[i]) > 0.999999, "another embedding");
        }, TaskCreationOptions.LongRunning)).ToArray());
    }

    private static void ThreadsShareASession()
    {
        using (var session = context.CreateSession(model))
        {
            var expected = Embed(session, "shared");
            Task.WaitAll(Enumerable.Range(0, 8).Select(_ => Task.Factory.StartNew(() =>
            {
                for (int n = 0; n < 20; n++)
                    Check(Embed(session, "shared").SequenceEqual(expected), "another embedding");
            }, TaskCreationOptions.LongRunning)).ToArray());
        }
    }

    private static void Settle()
    {
        for (int i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }

    private static long ResidentBytes()
    {
        return long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1]) * Environment.SystemPageSize;
    }

    // Creates objects of which nobody disposes, so that the finalizers must free them.
    private static void Litter(int rounds)
    {
        for (int i = 0; i < rounds; i++)
        {
            Tensor.From(new float[1 << 18], 1 << 18); // 1 MiB
            if (i % 50 != 0) continue;
            Embed(context.CreateSession(model, new SessionOptions { DisablePrepacking = true }), "dropped");
            context.Load(folder);
            tokenizer.Encode(new[] { "dropped" });
            Settle();
        }
    }

    private static void GarbageIsCollected()
    {
        Litter(100);
        Settle();
        long before = ResidentBytes();
        Litter(1000);
        Settle();
        long grown = ResidentBytes() - before;
        Check(grown < 300 << 20, "the process has grown by " + (grown >> 20) + " MiB");
    }

    // The garbage collector runs all the time while handles are made, used and dropped. It must not free a handle that
    // a call uses.
    private static void CollectorDuringCalls()
    {
        bool stop = false;
        var collector = new Thread(() =>
        {
            while (!Volatile.Read(ref stop))
            {
                GC.Collect();
                Thread.Sleep(1);
            }
        });
        collector.Start();
        try
        {
            for (int i = 0; i < 300; i++)
            {
                var text = "text number " + i;
                Check(tokenizer.Decode(tokenizer.Encode(new[] { text }).Ids.Elements<long>()) == text, text);
                Check(Tensor.FromStrings(new[] { text }, 1).Strings()[0] == text, text);
                if (i % 30 == 0) Check(Embed(context.CreateSession(model), text).Length == 384, "embedding");
            }
        }
        finally
        {
            Volatile.Write(ref stop, true);
            collector.Join();
        }
    }
}
