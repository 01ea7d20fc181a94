// Distillation: trains a model to reproduce the outputs of another.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>Divergence between the distributions of teacher and student.</summary>
    public enum Divergence
    {
        /// <summary>KL(teacher ‖ student): the student covers everything that the teacher considers possible.</summary>
        Forward = 0,

        /// <summary>KL(student ‖ teacher): the student concentrates on what the teacher considers most
        /// probable.</summary>
        Reverse = 1,

        /// <summary>Jensen-Shannon divergence: the mean of the divergences of both distributions from their
        /// mean.</summary>
        JensenShannon = 2,
    }

    /// <summary>Decay of the learning rate after the warm-up.</summary>
    public enum Schedule
    {
        /// <summary>Linear decay to 0.</summary>
        Linear = 0,

        /// <summary>Cosine decay to 0.</summary>
        Cosine = 1,

        /// <summary>Constant learning rate, without decay.</summary>
        Constant = 2,
    }

    /// <summary>A training step or a validation, as DistillOptions.Training receives it.</summary>
    public sealed class TrainingStep
    {
        internal TrainingStep(IntPtr step)
        {
            var native = Marshal.PtrToStructure<Native.TrainingStep>(step);
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

        /// <summary>Number of completed steps.</summary>
        public ulong Step { get; private set; }

        /// <summary>Number of planned steps; a time limit may end training earlier.</summary>
        public ulong TotalSteps { get; private set; }
        /// <summary>Index of the epoch, from 0.</summary>
        public uint Epoch { get; private set; }

        /// <summary>Number of planned epochs.</summary>
        public uint TotalEpochs { get; private set; }

        /// <summary>Whether this is a validation on held-out text instead of a step.</summary>
        public bool IsValidation { get; private set; }

        /// <summary>Training loss of this step, or loss of this validation.</summary>
        public double Loss { get; private set; }

        /// <summary>Norm of the gradients before clipping; 0 for a validation.</summary>
        public double GradientNorm { get; private set; }

        /// <summary>Learning rate of this step; 0 for a validation.</summary>
        public double LearningRate { get; private set; }

        /// <summary>Number of tokens per second in this step; 0 for a validation.</summary>
        public double TokensPerSecond { get; private set; }

        /// <summary>Training time until now, including that of the resumed run.</summary>
        public TimeSpan Elapsed { get; private set; }

        /// <summary>Estimated remaining time; zero for a validation.</summary>
        public TimeSpan Left { get; private set; }
    }

    /// <summary>Options of Context.Distill. Properties that are 0 or null have their defaults.</summary>
    public sealed class DistillOptions
    {
        /// <summary>Training text; required.</summary>
        public string Text { get; set; }

        /// <summary>Number of passes over the text; 0 is 3.</summary>
        public uint Epochs { get; set; }

        /// <summary>Whether each line of the text is a JSON object, <c>{"text": "..."}</c>, with a separate
        /// text.</summary>
        public bool JsonLines { get; set; }

        /// <summary>Number of rows per run: blocks of tokens for models that generate text, lines for others; 0 is
        /// 4.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Number of tokens per block; lines are truncated to this length. 0 is 128, or the limit of the
        /// models if it is less.</summary>
        public uint SequenceLength { get; set; }

        /// <summary>Number of runs whose gradients are accumulated into one step; 0 is 1.</summary>
        public uint GradientAccumulationSteps { get; set; }

        /// <summary>Learning rate after the warm-up; 0 is 5e-5.</summary>
        public double LearningRate { get; set; }

        /// <summary>Temperature of both distributions; 0 is 2.</summary>
        public double Temperature { get; set; }

        /// <summary>Divergence of the distributions.</summary>
        public Divergence Divergence { get; set; }

        /// <summary>Decay of the learning rate.</summary>
        public Schedule Schedule { get; set; }

        /// <summary>Weight of the divergence of logits in the loss; 0 selects 1 if both models have logits, and
        /// otherwise disables this part; a negative value always disables it.</summary>
        public double LogitsWeight { get; set; }

        /// <summary>Weight of the cross-entropy with the tokens of the text, or with its classes; 0 or a negative
        /// value disables it.</summary>
        public double LabelsWeight { get; set; }

        /// <summary>Weight of the mean squared difference of hidden states; 0 selects 1 if a model has no logits, and
        /// otherwise disables this part; a negative value always disables it.</summary>
        public double HiddenWeight { get; set; }

        /// <summary>Weight of 1 - cosine of hidden states; 0 selects 1 if a model has no logits, and otherwise disables
        /// this part; a negative value always disables it.</summary>
        public double CosineWeight { get; set; }

        /// <summary>Weight of the divergence of self-attention relations (queries, keys, values) in the last layer; 0
        /// or a negative value disables it.</summary>
        public double RelationsWeight { get; set; }

        /// <summary>Share of the steps in which the learning rate warms up; 0 is 0.05, a negative value disables the
        /// warm-up.</summary>
        public double WarmupRatio { get; set; }

        /// <summary>Weight decay of weights with more than one dimension; 0 is 0.01, a negative value disables
        /// it.</summary>
        public double WeightDecay { get; set; }

        /// <summary>Maximum norm of the gradients; 0 is 1, a negative value disables clipping.</summary>
        public double MaxGradNorm { get; set; }

        /// <summary>Share of the text that is held out for validation, at most 0.5; 0 is 0.05.</summary>
        public double ValidationRatio { get; set; }

        /// <summary>Maximum training time in seconds; 0 is no limit.</summary>
        public double TimeLimit { get; set; }

        /// <summary>Maximum number of steps; 0 is no limit.</summary>
        public ulong MaxSteps { get; set; }

        /// <summary>Number of steps between validations; 0 is ten validations during the training.</summary>
        public ulong EvaluateEvery { get; set; }

        /// <summary>Number of steps between checkpoints; 0 is an interval of ten minutes.</summary>
        public ulong CheckpointEvery { get; set; }

        /// <summary>Seed of the order in which the text is read, and of random initial values.</summary>
        public ulong Seed { get; set; }

        /// <summary>Names or globs of modules or weights that are not trained; null for none.</summary>
        [AllowNull, MaybeNull] public IList<string> Freeze { get; set; }

        /// <summary>Layers of the teacher that form the student: <c>layers:every-other</c>, or a number of layers such
        /// as <c>layers:6</c>; null if the argument student of Context.Distill is not null.</summary>
        [AllowNull, MaybeNull] public string StudentLayers { get; set; }

        /// <summary>Path of the checkpoint file, from which stopped training can continue, and which is removed when
        /// the training is complete; null for none.</summary>
        [AllowNull, MaybeNull] public string Checkpoint { get; set; }

        /// <summary>Whether training continues from Checkpoint, which is then required, if the file exists. If false,
        /// an existing file leads to Status.InvalidArgument.</summary>
        public bool Resume { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Path of a file that caches the teacher's outputs, so that the teacher runs only once on each part
        /// of the text, also in later calls; null for none. The cache of another teacher or text leads to
        /// Status.InvalidArgument.</summary>
        [AllowNull, MaybeNull] public string TeacherCache { get; set; }

        /// <summary>Number of most probable tokens or classes of each distribution in the cache; 0 is 64.</summary>
        public ulong TeacherTopK { get; set; }

        /// <summary>Execution provider of teacher and student: Cpu, Cuda or Auto. TensorRt leads to
        /// Status.Unsupported.</summary>
        public Provider Provider { get; set; }

        /// <summary>Index of the device, from 0; ignored for the CPU.</summary>
        public uint DeviceId { get; set; }

        /// <summary>Training callback, called after each step and each validation, on the thread that makes the call;
        /// null for none. If it throws, the training ends, a checkpoint is written if Checkpoint is set, and the call
        /// throws the exception.</summary>
        [AllowNull, MaybeNull] public Action<TrainingStep> Training { get; set; }

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
        /// <summary>Trains a student to reproduce the outputs of the teacher on the text of the options, and returns
        /// the trained model, with the report in Model.Report; both models are unchanged. Either the student or
        /// StudentLayers is required; the student is null with StudentLayers. Throws Status.Unsupported if a node of
        /// the student has no gradient or the models have no outputs in common, and Status.NotFound if neither model
        /// has a tokenizer. Throws Status.InvalidArgument if the text is too short, if there is a checkpoint and Resume
        /// is false, or if the checkpoint or the teacher cache belongs to another training.</summary>
        public Model Distill(Model teacher, Model student, DistillOptions options, [AllowNull] Call call = null)
        {
            Need(teacher, "teacher");
            Need(options, "options");
            var text = Utf8.BytesWithoutEnd(options.Text ?? "");
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Model result = null;
                BufferHandle report = null;
                var learner = student ?? new Model(); // without a handle: NULL for the library
                var training = options.Training;
                var caught = new Caught();
                Native.TrainingFn tell = (userData,
                    step) => caught.Guard(() => { training(new TrainingStep(step)); return true; });
                if (training != null) given.Training = Marshal.GetFunctionPointerForDelegate(tell);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_distill(
                    this, teacher, learner, text, (UIntPtr)text.Length, ref given, ref native, out result, out report,
                        out error),
                    caught);
                GC.KeepAlive(tell); // the library calls the delegate until here
                result.Report = new Report(report);
                return result;
            }
        }
    }
}
