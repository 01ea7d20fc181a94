// Compares two models: speed, load time, memory, size, and how close their outputs are. It prints the report,
// which is JSON.
//
//     Benchmark.exe ORIGINAL RESULT

using System;
using Optimize;

internal static class BenchmarkProgram
{
    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Benchmark.exe ORIGINAL RESULT");
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

    private static void Run(string first, string second)
    {
        using (var context = Context.Create())
        using (var original = context.Load(first))
        using (var result = context.Load(second))
            Console.WriteLine(context.Benchmark(original, result, new BenchmarkOptions { Runs = 20 }));
    }
}
