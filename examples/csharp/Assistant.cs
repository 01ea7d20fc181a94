// Answers a question from lines of text. The three lines nearest to the question are found by their vectors, and the
// reranker chooses one of them; "-" instead of a reranker chooses the nearest. The entities of the line are printed,
// and the decoder answers the question with the line. Without LINE, lines are read from standard input. No file is
// written, and no JSON is parsed.
//
//     Assistant.exe EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using Optimize;

internal static class Assistant
{
    private const int MostFound = 3;

    private const string Tools =
        "[{\"type\": \"function\", \"function\": {\"name\": \"search\", \"description\": \"Finds lines.\"," +
        "\"parameters\": {\"type\": \"object\", \"properties\": {\"words\": {\"type\": \"string\"}}}}}]";

    // Input and output are UTF-8 without a byte order mark, whatever the encoding of the system is.
    private static readonly Encoding Utf8 = new UTF8Encoding(false);

    private static int Main(string[] args)
    {
        if (args.Length < 5)
        {
            Console.Error.WriteLine("usage: Assistant.exe EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]");
            return 2;
        }
        try
        {
            var lines = args.Length > 5 ? args.Skip(5).ToList() : ReadLines();
            if (lines.Count == 0) throw new InvalidDataException("there are no lines");
            Run(args, lines);
            return 0;
        }
        catch (Exception e) when (e is OptimizeException || e is InvalidDataException)
        {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
    }

    // Returns the lines of the standard input that are not empty.
    private static List<string> ReadLines()
    {
        var lines = new List<string>();
        using (var input = new StreamReader(Console.OpenStandardInput(), Utf8))
            for (var line = input.ReadLine(); line != null; line = input.ReadLine())
                if (line.Length > 0) lines.Add(line);
        return lines;
    }

    private static void Run(string[] args, List<string> lines)
    {
        var question = args[4];
        using (var context = Context.Create())
        using (var output = new StreamWriter(Console.OpenStandardOutput(), Utf8))
        {
            var nearest = Find(context, args[0], question, lines);
            var line = args[1] == "-" ? nearest[0] : Rerank(context, args[1], question, nearest);
            output.WriteLine(line);
            foreach (var span in Tag(context, args[2], line))
                output.WriteLine("  {0}: {1}", span.Label, line.Substring(span.Start, span.End - span.Start));
            output.WriteLine(Answer(context, args[3], question, line));
        }
    }

    // Returns the MostFound lines whose vectors are nearest to that of the question, the nearest first.
    private static List<string> Find(Context context, string path, string question, List<string> lines)
    {
        // Dot products of normalized vectors are cosines.
        using (var model = context.Load(path))
        using (var embedder = context.CreateEmbedder(model, new EmbedderOptions { Normalize = true }))
        using (var vectors = embedder.Embed(new[] { question }.Concat(lines).ToList()))
        {
            var values = vectors.Elements<float>();
            var width = values.Length / (lines.Count + 1);
            Func<int, float> similarity = line =>
            {
                float sum = 0;
                for (var i = 0; i < width; i++) sum += values[i] * values[(line + 1) * width + i];
                return sum;
            };
            var order = Enumerable.Range(0, lines.Count).OrderByDescending(similarity);
            return order.Take(MostFound).Select(line => lines[line]).ToList();
        }
    }

    // Returns the line to which a reranker gives the highest score.
    private static string Rerank(Context context, string path, string question, List<string> lines)
    {
        using (var model = context.Load(path))
        using (var classifier = context.CreateClassifier(model))
        using (var scores = classifier.Classify(lines.ConvertAll(line => question), lines))
        {
            var values = scores.Elements<float>();
            var classes = values.Length / lines.Count;
            return lines[Enumerable.Range(0, lines.Count).OrderByDescending(line => values[line * classes]).First()];
        }
    }

    // Returns the entities of a text.
    private static IList<Span> Tag(Context context, string path, string text)
    {
        using (var model = context.Load(path))
        using (var tagger = context.CreateTagger(model, new TaggerOptions { Aggregation = Aggregation.Average }))
            return tagger.Tag(new[] { text })[0];
    }

    // Returns the text that the decoder generates: an answer to the question, or a call of the tool "search".
    private static string Answer(Context context, string path, string question, string line)
    {
        var messages = new[] { new Message("user", line + " " + question) };
        var chat = new ChatOptions { Tools = Tools, Thinking = Thinking.Off };
        var options = new GenerateOptions { MaxNewTokens = 40, Rendered = true };
        using (var model = context.Load(path))
        using (var generator = context.CreateGenerator(model))
        {
            var prompt = model.ApplyChatTemplate(messages, chat);
            return generator.Generate(new[] { prompt }, options).Generations()[0].Text;
        }
    }
}
