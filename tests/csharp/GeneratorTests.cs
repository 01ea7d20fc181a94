// The tests of generators, with SmolLM2 from its GGUF file. They need OPTIMIZE_TEST_DEPS, which tests/run.sh sets.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using Optimize;
using static Tap;

internal static class GeneratorTests
{
    private const string Count = "One, two, three, four,"; // the model continues: five, six, seven, eight, ...

    private static string models;
    private static Context context;
    private static Model model;
    private static Generator generator; // shared by all tests; a test discards the rows of the test before

    private static int Main()
    {
        models = Path.Combine(Environment.GetEnvironmentVariable("OPTIMIZE_TEST_DEPS") ?? "target/deps", "models");
        context = Context.Create();
        model = context.Load(Directory.GetFiles(Path.Combine(models, "smollm2"), "*.gguf").Single());
        generator = context.CreateGenerator(model);
        return Tap.Run(
            AChatNamesParisAndStreams, MessagesAreRenderedWhateverIsInThem, RunsGoOnWhereTheLastOneEnded,
            RowsAreWrittenAsIfAlone, StopStringsAndCallbacksEndAText, ExceptionInOnToken, BusyWhileItWrites,
            SeedsRepeat, LogProbabilities, CancelAndTimeout, WrongArguments, DisposeDuringAGeneration,
            CollectorDuringCallbacks, ADraftChangesNoText, ABfloat16CacheIsNearAFloat32One,
            AnEnsembleWritesOneText,
            APackageKeepsItsShapes, RecipesAreApplied, SessionsSayWhatTheyRunOn);
    }

    /// <summary>Returns the generations in a report, one per row.</summary>
    private static List<object> Rows(string report)
    {
        return (List<object>)Json.Find(Json.Parse(report), "generations");
    }

    /// <summary>Returns the generation after a prompt.</summary>
    private static object Write(string prompt, GenerateOptions options)
    {
        return Rows(generator.Generate(new[] { prompt }, options)).Single();
    }

    private static string Text(object row) { return (string)Json.Find(row, "text"); }

    private static string Reason(object row) { return (string)Json.Find(row, "finish_reason"); }

    private static IEnumerable<object> Tokens(object row) { return (List<object>)Json.Find(row, "tokens"); }

    private static GenerateOptions AtMost(uint tokens) { return new GenerateOptions { MaxNewTokens = tokens }; }

    private static void SessionsSayWhatTheyRunOn()
    {
        Check(context.Providers().Json.Contains("\"provider\":\"cpu\",\"device_id\":0,\"available\":true"), context.Providers());
        Check(generator.Placement().Json.Contains("\"provider\":\"cpu\""), generator.Placement());
        var auto = new Execution { Provider = Provider.Auto };
        using (var session = context.CreateSession(model, new SessionOptions { Execution = auto }))
        {
            Check(session.Provider != Provider.Auto, "a session on " + session.Provider);
            Check(session.Placement().Json.Contains("\"nodes\":{"), session.Placement());
        }
        var stock = new Execution { Kernels = Kernels.Stock };
        using (var session = context.CreateSession(model, new SessionOptions { Execution = stock }))
        {
            Check(!session.Placement().Json.Contains("\"groups\":"), session.Placement());
        }
        stock.Precision = SessionPrecision.Int8;
        Fails(Status.InvalidArgument, "kernels is stock",
            () => context.CreateSession(model, new SessionOptions { Execution = stock }));
        var relative = new Execution { Provider = Provider.TensorRt, EngineCache = "engines" };
        Fails(Status.InvalidArgument, "absolute",
            () => context.CreateGenerator(model, new GeneratorOptions { Execution = relative }));
    }

    private static void APackageKeepsItsShapes()
    {
        var path = Path.Combine(Path.GetTempPath(), "optimize-package-" + Guid.NewGuid());
        context.Compile(model, path, new PackageOptions
        {
            BatchMax = 1, PortableOnly = true, SignKey = string.Concat(Enumerable.Repeat("01", 32)),
        });
        var range = new Dimension { Input = "0", Index = 9, Name = "rows", Min = 1 };
        Fails(Status.InvalidArgument, "9", () => context.Compile(
            model, path, new PackageOptions { Dimensions = new[] { range } }));
        using (var package = Package.Open(path))
        using (var packaged = package.Model())
        using (var writer = context.CreateGenerator(package, new GeneratorOptions { Threads = 1 }))
        {
            package.Verify();
            Fails(Status.InvalidModel, "another key",
                () => package.Verify(string.Concat(Enumerable.Repeat("02", 32))));
            Check(package.Inspect(context).Json.Contains("chosen"), package.Inspect(context));
            var one = Rows(writer.Generate(new[] { Count }, AtMost(6))).Single();
            Check(Text(one) == Text(Write(Count, AtMost(6))), Text(one));
            // Prompts are read one by one; the rows are run together from the second token on.
            Fails(Status.InvalidArgument, "2", () => writer.Generate(new[] { Count, Count }, AtMost(6)));
        }
        Directory.Delete(path, true);
        Fails(Status.NotFound, "optimize-package", () => Package.Open(path));
    }

    private static void RecipesAreApplied()
    {
        var path = Path.Combine(Path.GetTempPath(), "optimize-recipe-" + Guid.NewGuid());
        const string recipe = "[{\"operation\": \"quantize\", \"type\": \"weight-only\", \"bits\": 4}]";
        var report = context.Apply(model, recipe, path, new ApplyOptions { Threads = 1 });
        Check(report.Json.Contains("\"apply\"") && File.Exists(Path.Combine(path, "model.onnx")), report);
        Fails(Status.InvalidArgument, "step 1", () => context.Apply(model, "[{\"operation\": \"x\"}]", path));
        var table = context.Table(new[] { model }, path, new TableOptions { Rows = new[] { "gptq" } });
        Check(table.Json.Contains("needs a text"), table);
        Fails(Status.InvalidArgument, "int8",
            () => context.Table(new[] { model }, path, new TableOptions { Rows = new[] { "x" } }));
        Directory.Delete(path, true);
    }

    private static void ADraftChangesNoText()
    {
        var plain = generator.Generate(new[] { Count }, AtMost(24)).Generations().Single();
        Check(plain.Steps == 0 && plain.Drafted == 0 && double.IsNaN(plain.Acceptance), "without a draft");
        var options = new GeneratorOptions { Draft = model, DraftLookup = true, DraftMax = 6 };
        using (var drafting = context.CreateGenerator(model, options))
        {
            var found = drafting.Generate(new[] { Count }, AtMost(24)).Generations().Single();
            Check(found.Text == plain.Text && found.Tokens.SequenceEqual(plain.Tokens), found.Text);
            Check(found.Accepted > 0 && found.Accepted <= found.Drafted, found.Accepted + " accepted");
            Check(found.Steps < found.Tokens.Length && found.Acceptance > 0, found.Steps + " steps");
            Fails(Status.InvalidArgument, "2 rows", () => drafting.Generate(new[] { Count, Count }, AtMost(2)));
        }
        options.DraftMax = 1000;
        Fails(Status.InvalidArgument, "draft_max is 1000", () => context.CreateGenerator(model, options));
    }

    private static void ABfloat16CacheIsNearAFloat32One()
    {
        var plain = generator.Generate(new[] { Count }, AtMost(8)).Generations().Single();
        var options = new GeneratorOptions { KvCacheType = KvCacheType.Bfloat16 };
        using (var half = context.CreateGenerator(model, options))
        {
            var found = half.Generate(new[] { Count }, AtMost(8)).Generations().Single();
            Check(found.Text == plain.Text, found.Text);
        }
        options.Execution = new Execution { Kernels = Kernels.Stock };
        Fails(Status.InvalidArgument, "kv_cache_type", () => context.CreateGenerator(model, options));
    }

    private static void AnEnsembleWritesOneText()
    {
        var options = new EnsembleOptions { Temperatures = new[] { 1, 1.5 } };
        using (var pair = Ensemble.Create(new[] { model, model }, options))
        using (var together = context.CreateGenerator(pair))
        {
            var heard = new List<Written>();
            var asked = AtMost(8);
            asked.OnToken = written =>
            {
                heard.Add(written);
                return true;
            };
            var text = Rows(together.Generate(new[] { Count }, asked)).Single();
            Check(Tokens(text).SequenceEqual(Tokens(Write(Count, AtMost(8)))), Text(text));
            Check(heard.Count == 8 && heard.All(w => w.Agreement == 1 && w.Entropy > 0), "what the members thought");
            var folder = Path.Combine(Path.GetTempPath(), "optimize-pair-" + Guid.NewGuid());
            pair.Save(folder);
            using (var again = Ensemble.Load(folder))
            {
                var temperatures = (List<object>)Json.Find(Json.Parse(again.Inspect()), "temperatures");
                Check((double)temperatures[1] == 1.5, again.Inspect());
                var words = string.Concat(Enumerable.Repeat("One, two, three. A man walks home. ", 8));
                using (var fitted = context.Fit(again, words, new FitOptions { ContextLength = 32 }))
                    Check(fitted.Report.Json.Contains("fitted_nll"), fitted.Report);
            }
            Directory.Delete(folder, true);
            using (var fused = pair.Fuse()) Check(fused.Report.Json.Contains("\"ensemble\""), fused.Report);
            using (var merged = Ensemble.Merge(new[] { model, model })) Check(merged.Report.Json.Contains("merge"), "merge");
            Fails(Status.InvalidArgument, "two members", () => Ensemble.Create(new[] { model }));
        }
    }

    private static void AChatNamesParisAndStreams()
    {
        var heard = new List<Written>();
        var answer = Write(model.RenderChat(new Message("user", "What is the capital of France?")), new GenerateOptions
        {
            MaxNewTokens = 24,
            Rendered = true,
            OnToken = written =>
            {
                heard.Add(written);
                return true;
            },
        });
        Check(Text(answer).Contains("Paris") && Reason(answer) == "eos", Text(answer));
        Check(string.Concat(heard.Select(w => w.Text)) == Text(answer), "streamed another text");
        Check(heard.Select(w => (double)w.Token).SequenceEqual(Tokens(answer).Cast<double>()), "streamed other tokens");
        Check(heard.Last().FinishReason == FinishReason.Eos, "it ends with " + heard.Last().FinishReason);
        Check(heard.Count(w => w.FinishReason != FinishReason.None) == 1 && heard.All(w => w.Row == 0), "ends or rows");
    }

    private static void MessagesAreRenderedWhateverIsInThem()
    {
        const string odd = "\"quotes\" \\ and\n\tcontrol \x01 characters, größer, 😀";
        Check(model.RenderChat(new Message("user", odd)).Contains(odd), "it came out changed");
        var two = model.RenderChat(new Message("system", "Be brief."), new Message("user", "Hello"));
        var same = model.RenderChat(
            "[{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Hello\"}]");
        Check(two == same && two.Contains("Be brief.") && two.Contains("Hello"), two);
        Fails(Status.InvalidArgument, "JSON", () => model.RenderChat("{"));
        var longer = model.RenderChat(new Message("user", "Hello"));
        var open = new ChatOptions { NoGenerationPrompt = true };
        var shorter = model.ApplyChatTemplate(new[] { new Message("user", "Hello") }, open);
        Check(shorter.Length < longer.Length && longer.StartsWith(shorter), shorter);
        open.Tools = "{}";
        Fails(Status.InvalidArgument, "tools", () => model.ApplyChatTemplate(new[] { new Message("user", "Hello") }, open));
        using (var encoder = context.Load(Path.Combine(models, "paraphrase-MiniLM-L3-v2")))
        {
            Fails(Status.NotFound, "template", () => encoder.RenderChat(new Message("user", "Hello")));
            Fails(Status.Unsupported, "", () => context.CreateGenerator(encoder));
        }
    }

    private static void RunsGoOnWhereTheLastOneEnded()
    {
        var whole = Write(Count, AtMost(12));
        generator.Reset();
        foreach (var text in new[] { "One, two,", "", " three, four," }) generator.Append(0, text);
        var parts = new[] { AtMost(5), AtMost(7) }.Select(o => Rows(generator.Run(o)).Single()).ToArray();
        Check(parts.SelectMany(Tokens).SequenceEqual(Tokens(whole)), "other tokens");
        Check(string.Concat(parts.Select(Text)) == Text(whole), "another text");

        Write(Count, AtMost(3));
        generator.Append(0, ", seven,");
        var appended = Text(Rows(generator.Run(AtMost(4))).Single());
        Check(appended == Text(Write(Count + " five, six, seven,", AtMost(4))), "appended: " + appended);
    }

    private static void RowsAreWrittenAsIfAlone()
    {
        var prompts = new[] { Count, "The sun rises in the" };
        var heard = new string[2];
        var options = AtMost(6);
        options.OnToken = written =>
        {
            heard[written.Row] += written.Text;
            return true;
        };
        var rows = Rows(generator.Generate(prompts, options));
        for (int i = 0; i < prompts.Length; i++)
        {
            var alone = Text(Write(prompts[i], AtMost(6)));
            Check(Text(rows[i]) == alone && heard[i] == alone, "row " + i + ": " + heard[i]);
        }
    }

    private static void StopStringsAndCallbacksEndAText()
    {
        var options = AtMost(24);
        options.Stop = new[] { "nothing", "seven" };
        var stopped = Write(Count, options);
        Check(Reason(stopped) == "stop", Reason(stopped));
        Check(Text(stopped).Contains("six") && !Text(stopped).Contains("seven"), Text(stopped));

        var last = Tokens(Write(Count, AtMost(24))).Last();
        options = AtMost(24);
        options.StopTokens = new[] { -1, Convert.ToInt64(last) };
        stopped = Write(Count, options);
        Check(Reason(stopped) == "stop" && Convert.ToInt64(Tokens(stopped).Last()) == Convert.ToInt64(last),
              Reason(stopped));

        int calls = 0;
        options = AtMost(24);
        options.OnToken = written => ++calls < 3;
        var ended = Write(Count, options);
        Check(Reason(ended) == "cancelled" && calls == 3 && Tokens(ended).Count() == 3, calls + " calls");
    }

    private static void ExceptionInOnToken()
    {
        int calls = 0;
        var options = AtMost(8);
        options.OnToken = written =>
        {
            if (++calls == 2) throw new FormatException("out of OnToken");
            return true;
        };
        var e = Throws<FormatException>(() => Write(Count, options));
        Check(e.Message == "out of OnToken" && calls == 2, e.Message + " after " + calls);
        // The tokens before the exception are not lost.
        var rest = Tokens(Rows(generator.Run(AtMost(6))).Single());
        Check(rest.SequenceEqual(Tokens(Write(Count, AtMost(8))).Skip(2)), "it went on otherwise");
    }

    private static void BusyWhileItWrites()
    {
        var options = AtMost(8);
        options.OnToken = written => generator.Run().Json.Length == 0;
        Fails(Status.Busy, "generator", () => Write(Count, options));
    }

    private static string Draw(ulong seed, uint topK = 0)
    {
        var options = new GenerateOptions { MaxNewTokens = 8, Temperature = 1, TopP = 0.95f, TopK = topK, Seed = seed };
        return Text(Write("Once upon a time", options));
    }

    private static void SeedsRepeat()
    {
        Check(Draw(7) == Draw(7) && Draw(7) != Draw(8), "seeds 7 and 8 give " + Draw(7) + " and " + Draw(8));
        Check(Draw(7, 1) == Text(Write("Once upon a time", AtMost(8))), "there was no choice");
    }

    private static void LogProbabilities()
    {
        var told = new List<float>();
        var options = AtMost(4);
        options.Logprobs = 3; // log-probabilities of the generated token and of the two most probable ones
        options.OnToken = written =>
        {
            told.Add(written.Logprob);
            return true;
        };
        var given = (List<object>)Json.Find(Write(Count, options), "logprobs");
        Check(given.Count == 4 && told.Count == 4, given.Count + " given, " + told.Count + " told");
        for (int i = 0; i < told.Count; i++)
        {
            Check(told[i] < 0 && told[i] > -5, "log-probability " + told[i]);
            Check((float)Json.Number(given[i], "chosen", "logprob") == told[i], "another was told");
            Check(((List<object>)Json.Find(given[i], "top")).Count == 2, "not two");
        }
    }

    private static void CancelAndTimeout()
    {
        var options = new GenerateOptions { MaxNewTokens = 2000, IgnoreEos = true };
        Fails(Status.Timeout, "", () =>
            generator.Generate(new[] { Count }, options, new Call { Timeout = TimeSpan.FromMilliseconds(50) }));
        using (var stop = new CancellationTokenSource())
        {
            int calls = 0;
            options.OnToken = written =>
            {
                calls++;
                stop.Cancel();
                return true;
            };
            var e = Throws<OperationCanceledException>(() => generator.Generate(new[] { Count }, options, stop.Token));
            Check(e.CancellationToken == stop.Token && calls == 1, calls + " calls");
            Throws<OperationCanceledException>(() => context.CreateGenerator(model, null, stop.Token));
        }
        Check(Text(Write(Count, AtMost(4))).Contains("five"), "it is of no use any more");
    }

    private static void WrongArguments()
    {
        Fails(Status.InvalidArgument, "max_length", () => Write(Count, new GenerateOptions { MaxLength = 2 }));
        Fails(Status.InvalidArgument, "temperature", () => Write(Count, new GenerateOptions { Temperature = -1 }));
        Fails(Status.InvalidArgument, "count", () => generator.Generate(new string[0]));
        Fails(Status.NotFound, "row 7", () => generator.Append(7, "x"));
        Throws<ArgumentException>(() => Write(Count, new GenerateOptions { Stop = new[] { "a\0b" } }));
        Throws<ArgumentNullException>(() => generator.Append(0, null));
    }

    private static void DisposeDuringAGeneration()
    {
        var other = Context.Create();
        var own = other.CreateGenerator(model, new GeneratorOptions { Threads = 1 });
        other.Dispose();
        var options = AtMost(4);
        options.OnToken = written =>
        {
            own.Dispose();
            return true;
        };
        Check(own.Generate(new[] { Count }, options).Json.Contains("five"), "another text");
        Throws<ObjectDisposedException>(() => own.Reset());
    }

    // The delegate that the library calls must not be garbage-collected during the call.
    private static void CollectorDuringCallbacks()
    {
        int calls = 0;
        var options = AtMost(16);
        options.OnToken = written =>
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            calls++;
            return true;
        };
        Write(Count, options);
        Check(calls == 16, calls + " calls");
    }
}
