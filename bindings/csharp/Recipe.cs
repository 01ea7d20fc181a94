// Recipes, and the table of techniques.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>Options of Context.Apply.</summary>
    public sealed class ApplyOptions
    {
        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Text for steps whose data or calibration data is <c>true</c> in the recipe; null for
        /// none.</summary>
        [AllowNull, MaybeNull] public string Data { get; set; }
    }

    /// <summary>Options of Context.Table.</summary>
    public sealed class TableOptions
    {
        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Number of timed rounds in each of the three repetitions of a measurement, which use new sessions; 0
        /// for 15.</summary>
        public uint Runs { get; set; }

        /// <summary>Time limit in milliseconds for the rounds of a repetition with one size of the input; 0 for
        /// 4000.</summary>
        public uint MaxMilliseconds { get; set; }

        /// <summary>Time limit of each training in milliseconds; 0 for 120000.</summary>
        public uint TrainingMilliseconds { get; set; }

        /// <summary>Text for calibration, training and quality; null measures quality on built-in sentences, and skips
        /// rows that need a text.</summary>
        [AllowNull, MaybeNull] public string Data { get; set; }

        /// <summary>Names of the rows to measure, such as "int8" (docs/table.md lists them); null for all.</summary>
        [AllowNull, MaybeNull] public IList<string> Rows { get; set; }

        /// <summary>Path of a second model for the row ensemble; null for the result of the row distill.</summary>
        [AllowNull, MaybeNull] public string With { get; set; }
    }

    public sealed partial class Context
    {
        /// <summary>Runs the steps of a recipe on a model and writes the result to a path: a package if the last step
        /// is compile, an engine if it is tensorrt, otherwise a model as X.onnx or a folder. The original is unchanged.
        /// The recipe is JSON: a list of steps (docs/recipes.md), or the report of a technique. Returns the JSON of
        /// docs/report.md. Throws Status.InvalidArgument if the recipe has an unknown operation or option, or if a step
        /// needs Data and there is none; otherwise the statuses of the techniques.</summary>
        public Report Apply(Model model, string recipe, string path, [AllowNull] ApplyOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new ApplyOptions();
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var given = new Native.ApplyOptions
                {
                    StructSize = Handle.SizeOf<Native.ApplyOptions>(),
                    Threads = options.Threads,
                    Data = scratch.Text(options.Data),
                    DataSize = options.Data == null ? 0 : (ulong)Encoding.UTF8.GetByteCount(options.Data),
                };
                IntPtr steps = scratch.Text(recipe), file = scratch.Text(path);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_apply(
                    this, model, steps, file, ref given, ref native, out report, out error));
            }
            return new Report(report);
        }

        /// <summary>Applies each technique to models, compares the results with the originals, and writes a table and
        /// packages of the results to a folder. Returns the JSON of docs/table.md. Rows that an earlier call with the
        /// same models and options has measured in this folder are not measured again. Rows that need a GPU or data
        /// that is not available are skipped. Throws Status.InvalidArgument for an unknown row, or if there are no
        /// models.</summary>
        public Report Table(IList<Model> models, string folder, [AllowNull] TableOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(models, "models");
            options = options ?? new TableOptions();
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var given = new Native.TableOptions
                {
                    StructSize = Handle.SizeOf<Native.TableOptions>(),
                    Threads = options.Threads,
                    Runs = options.Runs,
                    MaxMilliseconds = options.MaxMilliseconds,
                    TrainingMilliseconds = options.TrainingMilliseconds,
                    Data = scratch.Text(options.Data),
                    DataSize = options.Data == null ? 0 : (ulong)Encoding.UTF8.GetByteCount(options.Data),
                    Rows = scratch.Texts(options.Rows),
                    RowCount = Scratch.Count(options.Rows),
                    With = scratch.Text(options.With),
                };
                var list = scratch.Handles(models);
                IntPtr path = scratch.Text(folder);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_models_table(
                    this, list, (UIntPtr)models.Count, path, ref given, ref native, out report, out error));
            }
            return new Report(report);
        }
    }

    internal static partial class Native
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct ApplyOptions
        {
            internal uint StructSize, Threads;
            internal IntPtr Data;
            internal ulong DataSize;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct TableOptions
        {
            internal uint StructSize, Threads, Runs, MaxMilliseconds, TrainingMilliseconds, Reserved;
            internal IntPtr Data;
            internal ulong DataSize;
            internal IntPtr Rows;
            internal ulong RowCount;
            internal IntPtr With;
        }

        [DllImport(Library)] internal static extern int optimize_model_apply(
            Context context, Model model, IntPtr recipe, IntPtr path, ref ApplyOptions options, ref Call call,
            out BufferHandle report, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_models_table(
            Context context, IntPtr models, UIntPtr count, IntPtr folder, ref TableOptions options, ref Call call,
            out BufferHandle report, out ErrorHandle error);
    }
}
