// The tests of sequences of tokens, tasks and views. They need OPTIMIZE_TEST_DEPS and OPTIMIZE_TEST_TMP, which
// tests/run.sh sets.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Optimize;
using static Tap;

internal static class StreamTests
{
    // The model continues: five, six, seven, eight, and nine, ...
    private const string Count = "One, two, three, four,";

    private static string folder, temporary;
    private static Context context;
    private static Model model;
    private static Generator generator;

    private static int Main()
    {
        var models = Path.Combine(Environment.GetEnvironmentVariable("OPTIMIZE_TEST_DEPS") ?? "target/deps", "models");
        temporary = Environment.GetEnvironmentVariable("OPTIMIZE_TEST_TMP") ?? Path.GetTempPath();
        folder = Path.Combine(models, "paraphrase-MiniLM-L3-v2");
        context = Context.Create();
        model = context.Load(folder);
        using (var decoder = context.Load(Directory.GetFiles(Path.Combine(models, "smollm2"), "*.gguf").Single()))
            generator = context.CreateGenerator(decoder);
        return Tap.Run(
            AStreamGivesEveryToken, LeavingTheLoopEndsTheGeneration, AStreamEndsWithItsException, TasksGiveWhatCallsGive,
            ATaskIsCancelled, AViewIsTheTensorsMemory, AViewOutlivesItsTensor, ForgottenViewsAreFreed, ElementsOfOneByte,
            APlanEstimatesTheSize, PackagesTakeTheOptionsOfSessions);
    }

    private static GenerateOptions AtMost(uint tokens) { return new GenerateOptions { MaxNewTokens = tokens }; }

    private static string Text(string report)
    {
        var rows = (List<object>)Json.Find(Json.Parse(report), "generations");
        return (string)Json.Find(rows.Single(), "text");
    }

    private static void AStreamGivesEveryToken()
    {
        var whole = Text(generator.Generate(new[] { Count }, AtMost(8)));
        var tokens = generator.Stream(new[] { Count }, AtMost(8)).ToList();
        Check(string.Concat(tokens.Select(t => t.Text)) == whole, "another text than " + whole);
        Check(tokens.Count == 8 && tokens.Last().FinishReason == FinishReason.Length, tokens.Count + " tokens");
    }

    private static void LeavingTheLoopEndsTheGeneration()
    {
        var whole = Text(generator.Generate(new[] { Count }, AtMost(6)));
        var text = "";
        int tokens = 0;
        foreach (var token in generator.Stream(new[] { Count }, AtMost(50)))
        {
            text += token.Text;
            if (++tokens == 3) break;
        }
        // The generator is free again, and continues where the loop ended.
        foreach (var token in generator.StreamRun(AtMost(3))) text += token.Text;
        Check(text == whole, text + " in two loops, " + whole + " in one call");
        generator.Stream(new[] { Count, "Hello" }, AtMost(6)).First();
        generator.Reset();
    }

    private static void AStreamEndsWithItsException()
    {
        Throws<OptimizeException>(() => generator.Stream(new string[0]).ToList());
        using (var stop = new CancellationTokenSource())
        {
            int tokens = 0;
            Throws<OperationCanceledException>(() =>
            {
                foreach (var token in generator.Stream(
                    new[] { Count }, new GenerateOptions { MaxNewTokens = 200, IgnoreEos = true }, stop.Token))
                {
                    tokens++;
                    stop.Cancel();
                }
            });
            Check(tokens > 0 && tokens < 100, tokens + " tokens");
        }
        Throws<FormatException>(() =>
        {
            foreach (var token in generator.Stream(new[] { Count })) throw new FormatException();
        });
        generator.Generate(new[] { Count }, AtMost(1)); // the generator can be used again
    }

    private static void TasksGiveWhatCallsGive()
    {
        using (var loaded = context.LoadAsync(folder).Result)
        using (var small = context.QuantizeAsync(loaded).Result)
        {
            var path = Path.Combine(temporary, "task.onnx");
            Check(small.SaveAsync(path).Result.Json.Contains("task.onnx") && File.Exists(path), "not saved");
            using (var expected = context.Quantize(loaded))
                Check(small.Inspect().Json == expected.Inspect().Json, "another model");
        }
        Check(Text(generator.GenerateAsync(new[] { Count }, AtMost(4)).Result) ==
            Text(generator.Generate(new[] { Count }, AtMost(4))), "another text");
    }

    private static void ATaskIsCancelled()
    {
        using (var stop = new CancellationTokenSource())
        {
            var endless = new GenerateOptions { MaxNewTokens = 2000, IgnoreEos = true };
            endless.OnToken = token =>
            {
                stop.Cancel();
                return true;
            };
            var task = generator.GenerateAsync(new[] { Count }, endless, stop.Token);
            Throws<AggregateException>(() => task.Wait());
            Check(task.IsCanceled, "the task is " + task.Status);
            var late = context.LoadAsync(folder, stop.Token);
            Throws<AggregateException>(() => late.Wait());
            Check(late.IsCanceled, "a task of a cancelled token is " + late.Status);
        }
    }

    private static void AViewIsTheTensorsMemory()
    {
        using (var tensor = Tensor.From(new[] { 1.5f, 2.5f, -3 }, 3))
        using (var view = tensor.View())
        using (var again = tensor.View())
        {
            Check(view.Size == 12 && view.Pointer == again.Pointer, view.Size + " bytes");
            Check(view.At<float>(0) == 1.5f && view.At<float>(2) == -3, "other elements");
            Throws<ArgumentOutOfRangeException>(() => view.At<float>(3));
            Throws<ArgumentOutOfRangeException>(() => view.At<float>(-1));
            Throws<InvalidOperationException>(() => view.At<int>(0));
            using (var copy = Tensor.FromPointer(DType.Float32, view.Pointer, view.Size, 3))
                Check(copy.Elements<float>().SequenceEqual(tensor.Elements<float>()), "another copy");
        }
    }

    private static void AViewOutlivesItsTensor()
    {
        var tensor = Tensor.From(new[] { 42L });
        using (var view = tensor.View())
        {
            tensor.Dispose();
            Check(view.At<long>(0) == 42, "the memory is gone");
            view.Dispose();
            Check(view.Size == 0 && view.Pointer == IntPtr.Zero, "still a view");
            Throws<ObjectDisposedException>(() => view.At<long>(0));
        }
        Throws<ObjectDisposedException>(() => tensor.View());
    }

    // Finalizers free most views that nobody disposes of. Mono scans stacks conservatively, which keeps a few alive.
    private static void ForgottenViewsAreFreed()
    {
        var lent = new List<WeakReference>();
        for (int i = 0; i < 20; i++)
        {
            var thread = new Thread(() =>
            {
                var elements = new long[1 << 16];
                lent.Add(new WeakReference(elements));
                Tensor.Borrow(elements, 1 << 16).View();
            });
            thread.Start();
            thread.Join();
        }
        for (int i = 0; i < 20 && lent.Count(l => l.IsAlive) > 5; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Check(lent.Count(l => l.IsAlive) <= 5, lent.Count(l => l.IsAlive) + " of 20 tensors below them still exist");
    }

    private static void ElementsOfOneByte()
    {
        using (var tensor = Tensor.From(new[] { true, false, true }, 3))
        using (var view = tensor.View())
        {
            Check(view.Size == 3 && view.At<bool>(0) && !view.At<bool>(1) && view.At<bool>(2), "other elements");
            Check(tensor.Elements<bool>().SequenceEqual(new[] { true, false, true }), "another copy");
        }
    }

    private static void APlanEstimatesTheSize()
    {
        var options = new QuantizeOptions { Type = QuantizeType.WeightOnly, Bits = 4 };
        var planned = Json.Number(Json.Parse(context.Plan(model, options)), "summary", "bytes_after");
        using (var small = context.Quantize(model, options))
        {
            var made = Json.Number(Json.Parse(small.Report), "summary", "bytes_after");
            Check(Math.Abs(planned / made - 1) < 0.01, planned + " planned, " + made + " made");
        }
    }

    private static void PackagesTakeTheOptionsOfSessions()
    {
        var path = Path.Combine(temporary, "package");
        context.CompileAsync(model, path, new PackageOptions { Dynamic = true, PortableOnly = true }).Wait();
        using (var package = Package.Open(path))
        using (var session = context.CreateSession(package, new SessionOptions { Threads = 1 }))
        {
            Check(session.Inputs().Count == model.Inputs().Count, "inputs");
            var none = new SessionOptions { OptimizationLevel = (OptimizationLevel)9 };
            Fails(Status.InvalidArgument, "optimization_level is 9", () => context.CreateSession(package, none).Dispose());
        }
    }
}
