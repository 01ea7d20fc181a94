// Continues a text, and prints it while it is generated.
//
//     Generate.exe MODEL PROMPT

using System;
using Optimize;

internal static class GenerateProgram
{
    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Generate.exe MODEL PROMPT");
            return 2;
        }
        try
        {
            Run(args[0], args[1]);
            return 0;
        }
        catch (OptimizeException e)
        {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
    }

    private static void Run(string path, string prompt)
    {
        using (var context = Context.Create())
        using (var model = context.Load(path))
        using (var generator = context.CreateGenerator(model))
        {
            foreach (var token in generator.Stream(new[] { prompt }, new GenerateOptions { MaxNewTokens = 24 }))
                Console.Write(token.Text);
            Console.WriteLine();
        }
    }
}
