// The tests of sources, sinks, memory limits and runs into arrays. They need OPTIMIZE_TEST_DEPS, which
// tests/run.sh sets.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using Optimize;
using static Tap;

internal static class SourceTests
{
    private const string Sentence = "461"; // the name of the output with the embedding of the sentence

    private static string folder;
    private static Context context;
    private static Model model;
    private static Tokenizer tokenizer;

    private static int Main()
    {
        var deps = Environment.GetEnvironmentVariable("OPTIMIZE_TEST_DEPS") ?? "target/deps";
        folder = Path.Combine(deps, "models/paraphrase-MiniLM-L3-v2");
        context = Context.Create(new ContextOptions { Threads = 1 });
        model = context.Load(folder);
        tokenizer = model.LoadTokenizer();
        return Tap.Run(ModelsComeFromAndGoToMemory, PackagesComeFromAndGoToMemory, ExceptionsOfFilesComeOut,
            SessionsWithinALimit);
    }

    /// <summary>Returns the vector of a text, which RunInto writes to an array.</summary>
    private static float[] Embed(Model model)
    {
        using (var session = context.CreateSession(model))
        using (var tokens = tokenizer.Encode(new[] { "a text" }))
        {
            var inputs = tokens.Inputs(session.Inputs());
            var vector = new float[384];
            session.RunInto(inputs, new Dictionary<string, Output> { { Sentence, Output.To(vector, 1, 384) } });
            using (var made = session.Run(inputs, new[] { Sentence })[Sentence])
                Check(made.Elements<float>().SequenceEqual(vector), "another vector");
            Fails(Status.InvalidArgument, "192", () => session.RunInto(
                inputs, new Dictionary<string, Output> { { Sentence, Output.To(vector, 2, 192) } }));
            return vector;
        }
    }

    /// <summary>A stream that passes its bytes to a function when it is disposed of.</summary>
    private sealed class Kept : MemoryStream
    {
        private readonly Action<byte[]> keep;

        internal Kept(Action<byte[]> keep) { this.keep = keep; }

        protected override void Dispose(bool disposing)
        {
            keep(ToArray());
            base.Dispose(disposing);
        }
    }

    private static Func<string, Stream> Into(IDictionary<string, byte[]> files)
    {
        return name => new Kept(bytes => files[name] = bytes);
    }

    private static void ModelsComeFromAndGoToMemory()
    {
        var files = new Dictionary<string, byte[]>();
        var report = model.Save(Into(files), "m.onnx", ExternalData.Always);
        Check(files.Count == 2 && report.Json.Contains("m.onnx"), files.Count + " files: " + report.Json);
        files["tokenizer.json"] = File.ReadAllBytes(Path.Combine(folder, "tokenizer.json"));
        var source = new MemorySource(files);
        using (var again = context.Load(source, "m.onnx"))
        using (var words = again.LoadTokenizer())
        using (var alone = Tokenizer.Load(source, "tokenizer.json"))
        {
            Check(words.VocabularySize == 30522 && alone.VocabularySize == 30522, "another tokenizer");
            Check(Embed(again).SequenceEqual(Embed(model)), "another vector");
        }
        Fails(Status.NotFound, "none.onnx", () => context.Load(source, "none.onnx"));
    }

    private static void PackagesComeFromAndGoToMemory()
    {
        var files = new Dictionary<string, byte[]>();
        context.Compile(model, Into(files), "p", new PackageOptions { Dynamic = true, PortableOnly = true });
        using (var package = Package.Open(context, new MemorySource(files), "p"))
        {
            package.Verify();
            context.CreateSession(package).Dispose();
        }
    }

    private sealed class Broken : IFileSource
    {
        public long? Size(string name) { return 100; }
        public void Read(string name, long offset, byte[] buffer) { throw new IOException("in Read"); }
    }

    private static void ExceptionsOfFilesComeOut()
    {
        var e = Throws<IOException>(() => context.Load(new Broken(), "m"));
        Check(e.Message == "in Read", e.Message);
        Func<string, Stream> create = name => { throw new IOException("in create"); };
        e = Throws<IOException>(() => model.Save(create, "m"));
        Check(e.Message == "in create", e.Message);
    }

    private static void SessionsWithinALimit()
    {
        using (var small = Context.Create(new ContextOptions { MemoryLimit = 1 << 20 }))
            Fails(Status.LimitExceeded, "memory limit", () => small.CreateSession(model));
    }
}
