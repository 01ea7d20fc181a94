// Reports, and the values that they contain.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Action of a technique on a node.</summary>
    public sealed class NodeReport
    {
        internal NodeReport(Native.NodeReport raw)
        {
            Name = Utf8.Read(raw.Name);
            Op = Utf8.Read(raw.Op);
            Action = Utf8.Read(raw.Action);
            Reason = Utf8.Read(raw.Reason);
            Changed = raw.Changed != 0;
            Sensitivity = raw.Sensitivity;
        }

        /// <summary>Name of the node, or of its first output if it has none.</summary>
        public string Name { get; private set; }

        /// <summary>Operator type of the node.</summary>
        public string Op { get; private set; }

        /// <summary>Action, for example "quantized" or "left"; docs/report.md lists all.</summary>
        public string Action { get; private set; }

        /// <summary>Reason for the action; for a changed node, a description of what it is now.</summary>
        public string Reason { get; private set; }

        /// <summary>Whether the node was changed.</summary>
        public bool Changed { get; private set; }

        /// <summary>Loss of the model if this node alone is quantized; NaN if it was not measured.</summary>
        public double Sensitivity { get; private set; }
    }

    /// <summary>A token that the model could have generated at a position, with its log-probability.</summary>
    public struct Candidate
    {
        internal Candidate(long token, float logprob) : this()
        {
            Token = token;
            Logprob = logprob;
        }

        /// <summary>Id of the token.</summary>
        public long Token { get; private set; }

        /// <summary>Log-probability of the token.</summary>
        public float Logprob { get; private set; }
    }

    /// <summary>The generated text of a row.</summary>
    public sealed class Generation
    {
        internal Generation() { }

        /// <summary>Generated text, without stop string and special tokens.</summary>
        public string Text { get; internal set; }

        /// <summary>Ids of the generated tokens, including the one that ended the text.</summary>
        public long[] Tokens { get; internal set; }

        /// <summary>Log-probability of each of Tokens; empty if GenerateOptions.Logprobs was 0.</summary>
        public float[] Logprobs { get; internal set; }

        /// <summary>For each of Tokens, the GenerateOptions.Logprobs - 1 most probable tokens at this position, the
        /// most probable first; empty if GenerateOptions.Logprobs was 0.</summary>
        public IList<IList<Candidate>> Candidates { get; internal set; }

        /// <summary>Finish reason of the text.</summary>
        public FinishReason FinishReason { get; internal set; }

        /// <summary>Number of tokens in the row before the generated ones: those of the prompt and of earlier
        /// runs.</summary>
        public long PromptTokens { get; internal set; }

        /// <summary>Ensembles: mean entropy of the combined distribution, in nats; otherwise NaN.</summary>
        public double Entropy { get; internal set; }

        /// <summary>Ensembles: mean part of the entropy that is disagreement between the members, in nats; otherwise
        /// NaN.</summary>
        public double MutualInformation { get; internal set; }

        /// <summary>Ensembles: mean share of the members, by weight, that rank the token first; otherwise
        /// NaN.</summary>
        public double Agreement { get; internal set; }

        /// <summary>With a draft: number of runs of the model, of which the first one reads the prompt; otherwise
        /// 0.</summary>
        public long Steps { get; internal set; }

        /// <summary>Number of drafted tokens that the model verified; 0 without a draft.</summary>
        public long Drafted { get; internal set; }

        /// <summary>Number of drafted tokens that were accepted; 0 without a draft.</summary>
        public long Accepted { get; internal set; }

        /// <summary>Fraction of the drafted tokens that were accepted; NaN if none were drafted.</summary>
        public double Acceptance { get; internal set; }
    }

    /// <summary>Results of a benchmark. A number that was not measured, or does not apply to the models, is NaN, or 0
    /// for bytes.</summary>
    public sealed class Benchmark
    {
        internal Benchmark(Native.Benchmark raw)
        {
            Raw = raw;
            Verdict = Utf8.Read(raw.Verdict);
        }

        private Native.Benchmark Raw { get; set; }

        /// <summary>Number of timed rounds; both models ran once in each.</summary>
        public uint Runs { get { return Raw.Runs; } }

        /// <summary>Verdict on the speed of the result: "no difference" if the 95 % interval of the speedup contains 1,
        /// otherwise "faster" or "slower".</summary>
        public string Verdict { get; private set; }

        /// <summary>Median over the rounds of the time of the original divided by that of the result.</summary>
        public double Speedup { get { return Raw.Speedup; } }

        /// <summary>Lower end of the 95 % interval of the speedup.</summary>
        public double SpeedupLow { get { return Raw.SpeedupLow; } }

        /// <summary>Upper end of the 95 % interval of the speedup.</summary>
        public double SpeedupHigh { get { return Raw.SpeedupHigh; } }

        /// <summary>Median latency of the original in milliseconds.</summary>
        public double OriginalMs { get { return Raw.OriginalMs; } }

        /// <summary>Median latency of the result in milliseconds.</summary>
        public double ResultMs { get { return Raw.ResultMs; } }

        /// <summary>90th percentile of the original's latency in milliseconds.</summary>
        public double OriginalP90Ms { get { return Raw.OriginalP90Ms; } }

        /// <summary>90th percentile of the result's latency in milliseconds.</summary>
        public double ResultP90Ms { get { return Raw.ResultP90Ms; } }

        /// <summary>Time to create a session of the original in milliseconds.</summary>
        public double OriginalLoadMs { get { return Raw.OriginalLoadMs; } }

        /// <summary>Time to create a session of the result in milliseconds.</summary>
        public double ResultLoadMs { get { return Raw.ResultLoadMs; } }

        /// <summary>Growth of the process's resident memory by the original, in bytes.</summary>
        public ulong OriginalResidentBytes { get { return Raw.OriginalResidentBytes; } }

        /// <summary>Growth of the process's resident memory by the result, in bytes.</summary>
        public ulong ResultResidentBytes { get { return Raw.ResultResidentBytes; } }

        /// <summary>Size of the original on disk in bytes.</summary>
        public ulong OriginalBytes { get { return Raw.OriginalBytes; } }

        /// <summary>Size of the result on disk in bytes.</summary>
        public ulong ResultBytes { get { return Raw.ResultBytes; } }

        /// <summary>Mean cosine of the outputs of both models; the lowest of the judged outputs (docs/report.md) if
        /// there are several.</summary>
        public double Cosine { get { return Raw.Cosine; } }

        /// <summary>Largest absolute difference of the judged outputs of both models.</summary>
        public double MaxAbsError { get { return Raw.MaxAbsError; } }

        /// <summary>Share of the rows of the outputs whose largest element has the same index in both models; the
        /// lowest of the judged outputs.</summary>
        public double Top1Agreement { get { return Raw.Top1Agreement; } }

        /// <summary>Mean Kullback-Leibler divergence in nats, for outputs that are logits; the largest of the judged
        /// outputs.</summary>
        public double Kl { get { return Raw.Kl; } }
    }

    /// <summary>A report of the library: JSON, and methods that read values from the JSON. A Report converts to a
    /// string with the JSON.</summary>
    public sealed class Report
    {
        private readonly BufferHandle buffer;
        private readonly Lazy<string> json;

        internal Report(BufferHandle buffer)
        {
            this.buffer = buffer;
            json = new Lazy<string>(buffer.Read);
        }

        /// <summary>The whole report as JSON. docs/report.md describes the fields, unless the method that returned the
        /// report does.</summary>
        public string Json { get { return json.Value; } }

        /// <inheritdoc/>
        public override string ToString() { return Json; }

        /// <summary>Returns the JSON of a report; null for null.</summary>
        public static implicit operator string([AllowNull] Report report) { return report == null ? null : report.Json; }

        /// <summary>Returns the number at a JSON Pointer (RFC 6901), for example Number("/quality/perplexity"); 1 for
        /// true and 0 for false. Throws Status.NotFound if there is no such value, or if it is null, and
        /// Status.InvalidArgument if it is not a number.</summary>
        public double Number(string pointer)
        {
            double value;
            ErrorHandle error;
            var status = Native.optimize_report_number(buffer, Utf8.Bytes(pointer), out value, out error);
            OptimizeException.Check(status, error);
            return value;
        }

        /// <summary>Returns the text at a JSON Pointer, for example Text("/operation"). Throws Status.NotFound if there
        /// is no such value, or if it is null, and Status.InvalidArgument if it is not a text.</summary>
        public string Text(string pointer)
        {
            IntPtr value;
            UIntPtr size;
            ErrorHandle error;
            var status = Native.optimize_report_text(buffer, Utf8.Bytes(pointer), out value, out size, out error);
            OptimizeException.Check(status, error);
            var text = Utf8.Read(value, (long)size);
            GC.KeepAlive(this); // the buffer owns the memory that was read
            return text;
        }

        /// <summary>Returns the number of entries of the list or object at a JSON Pointer, for example
        /// Count("/warnings"). Throws Status.NotFound if there is no such value, or if it is null, and
        /// Status.InvalidArgument if it is neither a list nor an object.</summary>
        public long Count(string pointer)
        {
            UIntPtr value;
            ErrorHandle error;
            var status = Native.optimize_report_count(buffer, Utf8.Bytes(pointer), out value, out error);
            OptimizeException.Check(status, error);
            return (long)value;
        }

        /// <summary>Returns the action of the technique on each node; empty for a report without nodes.</summary>
        public IList<NodeReport> Nodes()
        {
            var nodes = new List<NodeReport>();
            var count = (ulong)Native.optimize_report_node_count(buffer);
            for (ulong i = 0; i < count; i++)
            {
                var raw = new Native.NodeReport { StructSize = Handle.SizeOf<Native.NodeReport>() };
                ErrorHandle error;
                OptimizeException.Check(
                    Native.optimize_report_node(buffer, (UIntPtr)i, ref raw, out error), error);
                nodes.Add(new NodeReport(raw));
            }
            GC.KeepAlive(this);
            return nodes;
        }

        /// <summary>Returns the results of the benchmark in the report. Throws Status.NotFound if the report has no
        /// benchmark.</summary>
        public Benchmark Benchmark()
        {
            var raw = new Native.Benchmark { StructSize = Handle.SizeOf<Native.Benchmark>() };
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_report_benchmark(buffer, ref raw, out error), error);
            var benchmark = new Benchmark(raw);
            GC.KeepAlive(this);
            return benchmark;
        }

        /// <summary>Returns the generated texts in the report of Generator.Generate or Generator.Run, one per row;
        /// empty for other reports.</summary>
        public IList<Generation> Generations()
        {
            var all = new List<Generation>();
            var count = (ulong)Native.optimize_generation_count(buffer);
            for (ulong row = 0; row < count; row++) all.Add(GenerationOf((UIntPtr)row));
            GC.KeepAlive(this);
            return all;
        }

        private Generation GenerationOf(UIntPtr row)
        {
            var raw = new Native.Generation { StructSize = Handle.SizeOf<Native.Generation>() };
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_generation_get(buffer, row, ref raw, out error), error);
            var made = new Generation
            {
                Text = Utf8.Read(raw.Text, (long)raw.TextSize),
                Tokens = new long[raw.TokenCount],
                Logprobs = new float[raw.Logprobs == IntPtr.Zero ? 0 : raw.TokenCount],
                Candidates = new List<IList<Candidate>>(),
                FinishReason = (FinishReason)raw.FinishReason,
                PromptTokens = (long)raw.PromptTokens,
                Entropy = raw.Entropy,
                MutualInformation = raw.MutualInformation,
                Agreement = raw.Agreement,
                Steps = (long)raw.Steps,
                Drafted = (long)raw.Drafted,
                Accepted = (long)raw.Accepted,
                Acceptance = raw.Acceptance,
            };
            if (made.Tokens.Length > 0) Marshal.Copy(raw.Tokens, made.Tokens, 0, made.Tokens.Length);
            if (made.Logprobs.Length > 0) Marshal.Copy(raw.Logprobs, made.Logprobs, 0, made.Logprobs.Length);
            for (int token = 0; token < made.Logprobs.Length; token++) made.Candidates.Add(CandidatesOf(row, token));
            return made;
        }

        private IList<Candidate> CandidatesOf(UIntPtr row, int token)
        {
            var all = new List<Candidate>();
            for (ulong i = 0; ; i++)
            {
                var raw = new Native.Candidate { StructSize = Handle.SizeOf<Native.Candidate>() };
                ErrorHandle error;
                var status = Native.optimize_generation_candidate(
                    buffer, row, (UIntPtr)token, (UIntPtr)i, ref raw, out error);
                using (error)
                    if (status != 0) return all; // there is no candidate i
                all.Add(new Candidate(raw.Token, raw.Logprob));
            }
        }
    }

    internal static partial class Native
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct NodeReport
        {
            internal uint StructSize, Changed;
            internal IntPtr Name, Op, Action, Reason;
            internal double Sensitivity;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Benchmark
        {
            internal uint StructSize, Runs;
            internal IntPtr Verdict;
            internal double Speedup, SpeedupLow, SpeedupHigh, OriginalMs, ResultMs, OriginalP90Ms, ResultP90Ms;
            internal double OriginalLoadMs, ResultLoadMs;
            internal ulong OriginalResidentBytes, ResultResidentBytes, OriginalBytes, ResultBytes;
            internal double Cosine, MaxAbsError, Top1Agreement, Kl;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Generation
        {
            internal uint StructSize;
            internal int FinishReason;
            internal IntPtr Text;
            internal ulong TextSize;
            internal IntPtr Tokens, Logprobs;
            internal ulong TokenCount, PromptTokens;
            internal double Entropy, MutualInformation, Agreement;
            internal ulong Steps, Drafted, Accepted;
            internal double Acceptance;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Candidate
        {
            internal uint StructSize;
            internal float Logprob;
            internal long Token;
        }

        [DllImport(Library)] internal static extern int optimize_report_number(
            BufferHandle report, byte[] pointer, out double value, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_report_text(
            BufferHandle report, byte[] pointer, out IntPtr value, out UIntPtr size, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_report_count(
            BufferHandle report, byte[] pointer, out UIntPtr count, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_report_node_count(BufferHandle report);
        [DllImport(Library)] internal static extern int optimize_report_node(
            BufferHandle report, UIntPtr index, ref NodeReport node, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_report_benchmark(
            BufferHandle report, ref Benchmark benchmark, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_generation_count(BufferHandle report);
        [DllImport(Library)] internal static extern int optimize_generation_get(
            BufferHandle report, UIntPtr row, ref Generation generation, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_generation_candidate(
            BufferHandle report, UIntPtr row, UIntPtr token, UIntPtr index, ref Candidate candidate,
            out ErrorHandle error);
    }
}
