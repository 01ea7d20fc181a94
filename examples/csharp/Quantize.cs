// Quantizes a model to int8, saves the result, runs it on a text, and compares it with the original.
//
//     Quantize.exe MODEL.onnx OUTPUT.onnx
//
// The text needs a tokenizer.json next to the model; without one, the models are compared on generated inputs.

using System;
using System.Globalization;
using System.Threading;
using Optimize;

internal static class Quantize
{
    private const string Text = "A smaller model answers sooner.";

    private static int Main(string[] args)
    {
        CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Quantize.exe MODEL.onnx OUTPUT.onnx");
            return 2;
        }
        // Ctrl-C cancels the current call, which leaves no incomplete file.
        using (var stop = new CancellationTokenSource())
        {
            Console.CancelKeyPress += (sender, e) =>
            {
                e.Cancel = true;
                stop.Cancel();
            };
            try
            {
                Run(args[0], args[1], stop.Token);
                return 0;
            }
            catch (Exception e) when (e is OptimizeException || e is OperationCanceledException)
            {
                Console.Error.WriteLine(e.Message);
                return 1;
            }
        }
    }

    private static void Run(string input, string output, CancellationToken stop)
    {
        using (var context = Context.Create())
        using (var original = context.Load(input, stop))
        using (var small = context.Quantize(original, null, new Call { Cancellation = stop, Progress = new Percent() }))
        {
            var report = Json.Parse(small.Report);
            Console.WriteLine("{0} nodes quantized, {1} left, in {2:0.00} s",
                Json.Find(report, "summary", "nodes_quantized"), Json.Find(report, "summary", "nodes_left"),
                Json.Find(report, "seconds"));
            small.Save(output, ExternalData.Auto, stop);

            using (var tokenizer = FindTokenizer(original))
            {
                if (tokenizer != null) Embed(context, small, tokenizer, stop);
                Compare(context, original, small, tokenizer, stop);
            }
        }
    }

    private static Tokenizer FindTokenizer(Model model)
    {
        try
        {
            return model.LoadTokenizer();
        }
        catch (OptimizeException e) when (e.Status == Status.NotFound)
        {
            return null;
        }
    }

    private static void Embed(Context context, Model model, Tokenizer tokenizer, CancellationToken stop)
    {
        using (var session = context.CreateSession(model, null, stop))
        using (var tokens = tokenizer.Encode(new[] { Text }))
        {
            foreach (var output in session.Run(tokens.Inputs(session.Inputs()), null, stop))
            {
                var shape = string.Join(" ", output.Value.Dims);
                Console.WriteLine("ran on \"{0}\": {1} has shape [{2}]", Text, output.Key, shape);
                output.Value.Dispose();
            }
        }
    }

    private static void Compare(
        Context context, Model original, Model small, Tokenizer tokenizer, CancellationToken stop)
    {
        var call = new Call { Cancellation = stop, Timeout = TimeSpan.FromMinutes(5) };
        var options = new BenchmarkOptions { Tokenizer = tokenizer };
        var report = Json.Parse(context.Benchmark(original, small, options, call));
        var b = Json.Find(report, "benchmark");
        var speedup = Json.Find(b, "speedup");
        Console.WriteLine("             original     result");
        Console.WriteLine("size       {0,7:0.0} MB {1,7:0.0} MB  {2:0.00} times smaller",
            Json.Number(b, "bytes", "original") / 1e6, Json.Number(b, "bytes", "result") / 1e6,
            Json.Find(b, "size_ratio"));
        Console.WriteLine("latency    {0,7:0.00} ms {1,7:0.00} ms  {2:0.00} times as fast ({3:0.00} to {4:0.00}): {5}",
            Json.Find(b, "latency_ms", "original", "median"), Json.Find(b, "latency_ms", "result", "median"),
            Json.Find(speedup, "median"), Json.Find(speedup, "low"), Json.Find(speedup, "high"),
            Json.Find(speedup, "verdict"));
        Console.WriteLine("cosine     {0,32:0.0000}", Json.Find(report, "quality", "cosine"));
    }

    /// <summary>Prints progress during the report, unlike System.Progress, which reports later and on another
    /// thread.</summary>
    private sealed class Percent : IProgress<Progress>
    {
        public void Report(Progress p)
        {
            Console.Error.Write("\r{0}: {1,3:0} %", p.Stage, p.Total == 0 ? 0 : 100.0 * p.Done / p.Total);
            if (p.Done == p.Total) Console.Error.WriteLine();
        }
    }
}
