// Distillation: trains a model to reproduce the outputs of another.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>Measure of the difference between two distributions. Forward: KL(teacher, student). Reverse:
    /// KL(student, teacher). JensenShannon: the mean of both to their average.</summary>
    public enum Divergence { Forward = 0, Reverse = 1, JensenShannon = 2 }

    /// <summary>Learning rate schedule.</summary>
    public enum Schedule { Linear = 0, Cosine = 1, Constant = 2 }

    /// <summary>Progress of training. See optimize_training_step_t.</summary>
    public sealed class TrainingStep
    {
        internal TrainingStep(IntPtr step)
        {
            var native = (Native.TrainingStep)Marshal.PtrToStructure(step, typeof(Native.TrainingStep));
            Step = native.Step;
            TotalSteps = native.TotalSteps;
            Epoch = native.Epoch;
            TotalEpochs = native.TotalEpochs;
            IsValidation = native.IsValidation != 0;
            Loss = native.Loss;
            GradientNorm = native.GradientNorm;
            LearningRate = native.LearningRate;
            TokensPerSecond = native.TokensPerSecond;
            Elapsed = TimeSpan.FromSeconds(native.Seconds);
            Left = TimeSpan.FromSeconds(native.SecondsLeft);
        }

        public ulong Step { get; private set; }
        public ulong TotalSteps { get; private set; }
        /// <summary>Index of the epoch, from 0.</summary>
        public uint Epoch { get; private set; }

        /// <summary>Number of planned epochs.</summary>
        public uint TotalEpochs { get; private set; }

        /// <summary>Whether this is a validation on the held-out text, not a step.</summary>
        public bool IsValidation { get; private set; }

        public double Loss { get; private set; }
        public double GradientNorm { get; private set; }
        public double LearningRate { get; private set; }
        public double TokensPerSecond { get; private set; }
        public TimeSpan Elapsed { get; private set; }

        /// <summary>Estimated remaining time.</summary>
        public TimeSpan Left { get; private set; }
    }

    /// <summary>Options of Context.Distill. 0 selects the default of each; for weights, warm-up, decay and norm, a
    /// negative number disables it. See optimize_distill_options_t.</summary>
    public sealed class DistillOptions
    {
        /// <summary>Training text. Required.</summary>
        public string Text { get; set; }

        public uint Epochs { get; set; }

        public bool JsonLines { get; set; }

        public uint BatchSize { get; set; }

        public uint SequenceLength { get; set; }

        public uint GradientAccumulationSteps { get; set; }

        public double LearningRate { get; set; }

        public double Temperature { get; set; }

        public Divergence Divergence { get; set; }

        public Schedule Schedule { get; set; }

        public double LogitsWeight { get; set; }

        public double LabelsWeight { get; set; }

        public double HiddenWeight { get; set; }

        public double CosineWeight { get; set; }

        public double RelationsWeight { get; set; }

        public double WarmupRatio { get; set; }

        public double WeightDecay { get; set; }

        public double MaxGradNorm { get; set; }

        public double ValidationRatio { get; set; }

        public double TimeLimit { get; set; }

        public ulong MaxSteps { get; set; }

        public ulong EvaluateEvery { get; set; }

        public ulong CheckpointEvery { get; set; }

        public ulong Seed { get; set; }

        /// <summary>Names or globs of modules or weights that are not trained.</summary>
        public IList<string> Freeze { get; set; }

        /// <summary><c>layers:every-other</c> or <c>layers:6</c>, without a student.</summary>
        public string StudentLayers { get; set; }

        /// <summary>File for the state; null for none.</summary>
        public string Checkpoint { get; set; }

        public bool Resume { get; set; }

        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>File that caches the teacher's outputs; null for none.</summary>
        public string TeacherCache { get; set; }

        /// <summary>Number of tokens or classes of each distribution in the cache.</summary>
        public ulong TeacherTopK { get; set; }

        /// <summary>Provider of teacher and student: CPU, CUDA, or Auto.</summary>
        public Provider Provider { get; set; }

        /// <summary>Index of the GPU, from 0.</summary>
        public uint DeviceId { get; set; }

        /// <summary>Called after each step and validation, on the thread that makes the call.</summary>
        public Action<TrainingStep> Training { get; set; }

        internal Native.DistillOptions ToNative(Scratch scratch)
        {
            return new Native.DistillOptions
            {
                StructSize = Handle.SizeOf<Native.DistillOptions>(),
                Epochs = Epochs,
                JsonLines = JsonLines ? 1u : 0,
                BatchSize = BatchSize,
                SequenceLength = SequenceLength,
                GradientAccumulationSteps = GradientAccumulationSteps,
                LearningRate = LearningRate,
                Temperature = Temperature,
                Divergence = (int)Divergence,
                Schedule = (int)Schedule,
                LogitsWeight = LogitsWeight,
                LabelsWeight = LabelsWeight,
                HiddenWeight = HiddenWeight,
                CosineWeight = CosineWeight,
                RelationsWeight = RelationsWeight,
                WarmupRatio = WarmupRatio,
                WeightDecay = WeightDecay,
                MaxGradNorm = MaxGradNorm,
                ValidationRatio = ValidationRatio,
                TimeLimit = TimeLimit,
                MaxSteps = MaxSteps,
                EvaluateEvery = EvaluateEvery,
                CheckpointEvery = CheckpointEvery,
                Seed = Seed,
                Freeze = scratch.Texts(Freeze),
                FreezeCount = Scratch.Count(Freeze),
                StudentLayers = scratch.Text(StudentLayers),
                Checkpoint = scratch.Text(Checkpoint),
                Resume = Resume ? 1u : 0,
                Threads = Threads,
                TeacherCache = scratch.Text(TeacherCache),
                TeacherTopK = TeacherTopK,
                Provider = (int)Provider,
                DeviceId = DeviceId,
            };
        }
    }

    public sealed partial class Context
    {
        /// <summary>Trains a student to reproduce the outputs of the teacher, and returns a new model; both stay
        /// unchanged. The student may be null with StudentLayers. The result's Report is the JSON of
        /// docs/report.md.</summary>
        public Model Distill(Model teacher, Model student, DistillOptions options, Call call = null)
        {
            var text = Encoding.UTF8.GetBytes(options.Text ?? "");
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Model result = null;
                BufferHandle report = null;
                var learner = student ?? new Model(); // NULL to the library
                var training = options.Training;
                var caught = new Caught();
                Native.TrainingFn tell = (userData, step) => caught.Guard(() => { training(new TrainingStep(step)); return true; });
                if (training != null) given.Training = Marshal.GetFunctionPointerForDelegate(tell);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_distill(
                    this, teacher, learner, text, (UIntPtr)text.Length, ref given, ref native, out result, out report, out error),
                    caught);
                GC.KeepAlive(tell); // the library has its address
                result.Report = report.Take();
                return result;
            }
        }
    }
}
