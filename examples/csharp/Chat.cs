// A conversation with a model.
//
//     Chat.exe MODEL [QUESTION ...]
//
// MODEL is a .gguf file, a checkpoint folder or an exported folder. Without QUESTION, questions are read from the
// terminal, one per line. The generator keeps its KV cache, so that each turn computes only its own tokens.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using Optimize;

internal static class Chat
{
    // Input and output are UTF-8 without a byte order mark, whatever the encoding of the system is.
    private static readonly Encoding Utf8 = new UTF8Encoding(false);

    private static int Main(string[] args)
    {
        if (args.Length < 1)
        {
            Console.Error.WriteLine("usage: Chat.exe MODEL [QUESTION ...]");
            return 2;
        }
        try
        {
            Run(args[0], args.Length > 1 ? args.Skip(1) : Lines());
            return 0;
        }
        catch (OptimizeException e)
        {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
    }

    private static void Run(string path, IEnumerable<string> questions)
    {
        using (var context = Context.Create())
        using (var model = context.Load(path))
        using (var generator = context.CreateGenerator(model))
        using (var output = new StreamWriter(Console.OpenStandardOutput(), Utf8) { AutoFlush = true })
        {
            var options = new GenerateOptions { MaxNewTokens = 200, Rendered = true };
            // Prints each token of the answer when it is generated. A result of false would end the answer.
            options.OnToken = written =>
            {
                output.Write(written.Text);
                return true;
            };
            foreach (var question in questions)
            {
                generator.Append(0, model.RenderChat(new Message("user", question)), options);
                generator.Run(options);
                output.WriteLine();
            }
        }
    }

    private static IEnumerable<string> Lines()
    {
        using (var input = new StreamReader(Console.OpenStandardInput(), Utf8))
        {
            while (true)
            {
                Console.Error.Write("> ");
                var line = input.ReadLine();
                if (line == null) yield break;
                yield return line;
            }
        }
    }
}
