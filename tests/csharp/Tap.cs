// Shared by the test programs of this folder.

using System;
using Optimize;

internal static class Tap
{
    /// <summary>Runs tests, prints a line for each, and returns the exit status of the program.</summary>
    internal static int Run(params Action[] tests)
    {
        int failed = 0;
        foreach (var test in tests)
        {
            try
            {
                test();
                Console.WriteLine("ok - " + test.Method.Name);
            }
            catch (Exception e)
            {
                failed++;
                Console.WriteLine("not ok - " + test.Method.Name + "\n# " + e.ToString().Replace("\n", "\n# "));
            }
        }
        Console.WriteLine("1.." + tests.Length);
        return failed == 0 ? 0 : 1;
    }

    internal static void Check(bool holds, string otherwise)
    {
        if (!holds) throw new Exception(otherwise);
    }

    internal static T Throws<T>(Action action) where T : Exception
    {
        try
        {
            action();
        }
        catch (T e)
        {
            return e;
        }
        throw new Exception("no " + typeof(T).Name);
    }

    internal static void Fails(Status status, string mention, Action action)
    {
        var e = Throws<OptimizeException>(action);
        Check(e.Status == status && e.Message.Contains(mention), e.Status + ", not " + status + ": " + e.Message);
    }
}
