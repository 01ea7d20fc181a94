// Trains a student to reproduce the outputs of TEACHER on the file TEXT, and saves it. The student is made of
// every other layer of the teacher.
//
//     Distill.exe TEACHER TEXT OUTPUT

using System;
using System.IO;
using Optimize;

internal static class DistillProgram
{
    private static int Main(string[] args)
    {
        if (args.Length != 3)
        {
            Console.Error.WriteLine("usage: Distill.exe TEACHER TEXT OUTPUT");
            return 2;
        }
        try
        {
            Run(args[0], args[1], args[2]);
            return 0;
        }
        catch (OptimizeException e)
        {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
    }

    private static void Run(string input, string text, string output)
    {
        var options = new DistillOptions
        {
            Text = File.ReadAllText(text),
            Epochs = 1,
            StudentLayers = "layers:every-other",
            // An exception would end the training.
            Training = step => Console.WriteLine("{0} {1} of {2}: loss {3:0.0000}",
                step.IsValidation ? "validation after step" : "step", step.Step, step.TotalSteps, step.Loss),
        };
        using (var context = Context.Create())
        using (var teacher = context.Load(input))
        using (var student = context.Distill(teacher, null, options))
            student.Save(output);
    }
}
