// Generates one text with several models: at each token, their probabilities are averaged. The models must
// generate text, and have the same vocabulary.
//
//     Ensemble.exe PROMPT MODEL MODEL ...

using System;
using System.Linq;
using Optimize;

internal static class EnsembleProgram
{
    private static int Main(string[] args)
    {
        if (args.Length < 3)
        {
            Console.Error.WriteLine("usage: Ensemble.exe PROMPT MODEL MODEL ...");
            return 2;
        }
        try
        {
            Run(args);
            return 0;
        }
        catch (OptimizeException e)
        {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
    }

    private static void Run(string[] args)
    {
        var prompt = args[0];
        using (var context = Context.Create())
        {
            var models = args.Skip(1).Select(path => context.Load(path)).ToList();
            using (var ensemble = Ensemble.Create(models, new EnsembleOptions { Method = EnsembleMethod.Mean }))
            using (var generator = context.CreateGenerator(ensemble))
            {
                foreach (var token in generator.Stream(new[] { prompt }, new GenerateOptions { MaxNewTokens = 24 }))
                    Console.Write(token.Text);
                Console.WriteLine();
            }
            foreach (var model in models) model.Dispose();
        }
    }
}
