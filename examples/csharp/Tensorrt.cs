// Builds a TensorRT engine of a model in fp16, for batches of one row of 128 tokens. Without TensorRT or
// a GPU, it prints the reason.
//
//     Tensorrt.exe MODEL OUTPUT.engine

using System;
using Optimize;

internal static class TensorrtProgram
{
    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Tensorrt.exe MODEL OUTPUT.engine");
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
            return Missing(e.Status) ? 0 : 1;
        }
    }

    private static void Run(string input, string path)
    {
        var options = new TensorRtOptions { Precision = Precision.Fp16, BatchSize = 1, SequenceLength = 128 };
        using (var context = Context.Create())
        using (var model = context.Load(input))
            Console.WriteLine(context.BuildTensorRt(model, path, options));
    }

    /// <summary>Returns whether a status is that of a machine on which TensorRT or a GPU is missing or has an
    /// unsupported version, which is not a failure of this example.</summary>
    private static bool Missing(Status status)
    {
        return status == Status.BackendMissing || status == Status.DeviceMissing || status == Status.Unsupported;
    }
}
