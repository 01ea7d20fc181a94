// The tests of functions for programs that embed the library: spans, values of reports, log messages and counters.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using Optimize;
using static Tap;

internal static class ProgramTests
{
    private static string models;
    private static Context context;

    private static int Main()
    {
        models = Path.Combine(Environment.GetEnvironmentVariable("OPTIMIZE_TEST_DEPS") ?? "target/deps", "models");
        context = Context.Create(new ContextOptions { Threads = 1 });
        return Tap.Run(TextsBecomeSpans, OptionsOfATagger, NodesAndBenchmarks, GeneratedTexts, MessagesAndCounters);
    }

    private static void TextsBecomeSpans()
    {
        const string text = "I am Maria Fernández from Springfield.";
        var options = new TaggerOptions { Aggregation = Aggregation.Average };
        using (var model = context.Load(Path.Combine(models, "rampart")))
        using (var tagger = context.CreateTagger(model, options))
        {
            var spans = tagger.Tag(new[] { "Nothing to see here.", text });
            Check(spans.Count == 2 && spans[0].Count == 0, "spans");
            var found = spans[1].Select(s => s.Label + "=" + text.Substring(s.Start, s.End - s.Start));
            Check(string.Join(";", found) == "GIVEN_NAME=Maria;SURNAME=Fernández;CITY=Springfield", string.Join(";", found));
            Check(spans[1].All(s => s.Score > 0.8 && s.Score <= 1), "scores");
            Fails(Status.InvalidArgument, "no text", () => tagger.Tag(new string[0]));
        }
    }

    private static void OptionsOfATagger()
    {
        var options = new TaggerOptions { KeepOutside = true, Aggregation = Aggregation.None };
        using (var model = context.Load("tests/fixtures/encoders/bert-tags"))
        using (options.Tokenizer = Tokenizer.Load("tests/fixtures/encoders/bert-tags/tokenizer.json"))
        {
            using (var tagger = context.CreateTagger(model, options))
            {
                var spans = tagger.Tag(new[] { "hello world" })[0];
                Check(spans.Count == 3 && spans[0].Label == "B-LOC", spans.Count + " spans");
            }
            options.Stride = 20;
            Fails(Status.InvalidArgument, "stride", () => context.CreateTagger(model, options));
        }
    }

    private static void NodesAndBenchmarks()
    {
        using (var model = context.Load(Path.Combine(models, "paraphrase-MiniLM-L3-v2")))
        using (var small = context.Quantize(model))
        {
            var nodes = small.Report.Nodes();
            var changed = small.Report.Number("/summary/nodes_quantized") + small.Report.Number("/summary/nodes_stored");
            Check(nodes.Count(n => n.Changed) == changed && nodes.All(n => n.Name != "" && n.Reason != ""), "nodes");
            Check(small.Report.Text("/operation") == "quantize", "operation");
            Check(small.Report.Count("/nodes") == nodes.Count, "count");
            Fails(Status.NotFound, "/nothing", () => small.Report.Number("/nothing"));
            Fails(Status.NotFound, "no benchmark", () => small.Report.Benchmark());
            var options = new BenchmarkOptions { Runs = 6, Warmup = 1, Shapes = new[] { "input_ids:1x8", "attention_mask:1x8" } };
            var report = context.Benchmark(model, small, options);
            var figures = report.Benchmark();
            Check(figures.Runs == 6 && figures.Speedup == report.Number("/benchmark/speedup/median"), "speed-up");
            Check(figures.SpeedupLow <= figures.Speedup && figures.Speedup <= figures.SpeedupHigh, "interval");
            Check(figures.ResultBytes < figures.OriginalBytes && figures.OriginalMs > 0, "bytes");
            Check(figures.Cosine > 0.9 && figures.Verdict != "", figures.Verdict);
            Check(((string)report).StartsWith("{"), "JSON");
            var plan = context.Plan(model);
            Check(plan.Text("/operation") == "plan" && plan.Number("/summary/bytes_after") > 0, "plan");
        }
    }

    private static void GeneratedTexts()
    {
        var gguf = Directory.GetFiles(Path.Combine(models, "smollm2"), "*.gguf")[0];
        using (var model = context.Load(gguf))
        using (var generator = context.CreateGenerator(model))
        {
            var options = new GenerateOptions { MaxNewTokens = 4, Logprobs = 3, IgnoreEos = true };
            var texts = generator.Generate(new[] { "A", "One, two, three," }, options).Generations();
            Check(texts.Count == 2 && texts[1].Tokens.Length == 4 && texts[1].Text.Contains("four"), texts[1].Text);
            Check(texts[1].FinishReason == FinishReason.Length && texts[1].PromptTokens >= 4, "reason");
            for (int i = 0; i < 4; i++)
            {
                var best = texts[1].Candidates[i];
                Check(best.Count == 2 && best[0].Token == texts[1].Tokens[i], "the most probable token");
                Check(best[0].Logprob == texts[1].Logprobs[i] && best[1].Logprob <= best[0].Logprob, "log-probability");
            }
            Check(double.IsNaN(texts[0].Entropy), "entropy");
        }
    }

    private static void MessagesAndCounters()
    {
        var heard = new List<string>();
        var options = new ContextOptions
        {
            Log = (level, target, message) => { lock (heard) heard.Add(level + " " + target + " " + message); },
            LogLevel = LogLevel.Info,
        };
        using (var logging = Context.Create(options))
        {
            var before = logging.Counters();
            using (var model = logging.Load(Path.Combine(models, "paraphrase-MiniLM-L3-v2")))
            using (logging.CreateSession(model))
            {
                var after = logging.Counters();
                Check(after.ModelsLoaded == before.ModelsLoaded + 1, "models");
                Check(after.SessionsCreated == before.SessionsCreated + 1, "sessions");
            }
            var text = logging.CountersText(CountersFormat.Prometheus);
            Check(text.Contains("# TYPE optimize_runs_total counter"), text);
        }
        Check(heard.Any(line => line.StartsWith("Info optimize ") && line.Contains("session on cpu")), heard.Count + " lines");
        Check(heard.All(line => !line.StartsWith("Debug")), "level");
        var count = heard.Count;
        context.Load(Path.Combine(models, "paraphrase-MiniLM-L3-v2")).Dispose();
        Check(heard.Count == count, "a message after Dispose");
    }
}
