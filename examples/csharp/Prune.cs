// Removes 30 % of the neurons, channels and heads of a model, and saves the result.
//
//     Prune.exe MODEL OUTPUT

using System;
using Optimize;

internal static class PruneProgram
{
    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Prune.exe MODEL OUTPUT");
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

    private static void Run(string input, string output)
    {
        using (var context = Context.Create())
        using (var model = context.Load(input))
        using (var small = context.Prune(model, new PruneOptions { Method = PruneMethod.Structured, Sparsity = 0.3 }))
        {
            small.Save(output);
            var summary = Json.Find(Json.Parse(small.Report), "summary");
            Console.WriteLine("{0} parameters, {1} before",
                Json.Find(summary, "parameters_after"), Json.Find(summary, "parameters_before"));
        }
    }
}
