// Writes a package of a model for batches of 1 to 8 rows, then opens the package like a program that runs the model,
// and prints its inputs.
//
//     Compile.exe MODEL PACKAGE

using System;
using Optimize;

internal static class CompileProgram
{
    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Compile.exe MODEL PACKAGE");
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

    private static void Run(string input, string path)
    {
        using (var context = Context.Create())
        {
            using (var model = context.Load(input))
                context.Compile(model, path, new PackageOptions { Dynamic = true, BatchMax = 8 });

            using (var package = Package.Open(path))
            using (var session = context.CreateSession(package))
                foreach (var shape in session.Inputs())
                    Console.WriteLine("input {0} of rank {1}", shape.Name, shape.Dims.Length);
        }
    }
}
