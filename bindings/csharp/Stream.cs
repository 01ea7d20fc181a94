// Sequences of tokens, which are generated while the sequence is read.

using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
#if NET8_0_OR_GREATER
using System.Runtime.CompilerServices;
#endif

namespace Optimize
{
    /// <summary>A call that generates tokens on a separate thread. After each token, the call waits until the loop of
    /// the program has processed the token.</summary>
    internal sealed class TokenStream
    {
        private readonly SemaphoreSlim ready = new SemaphoreSlim(0), processed = new SemaphoreSlim(0);
        private readonly Task work;
        private volatile bool ended, left;

        internal TokenStream(GenerateOptions options, Action<GenerateOptions> generate)
        {
            var given = (options ?? new GenerateOptions()).Copy();
            given.OnToken = Tell;
            work = Task.Factory.StartNew(() =>
            {
                try
                {
                    generate(given);
                }
                finally
                {
                    ended = true;
                    ready.Release();
                }
            }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        }

        /// <summary>The token for which Next returned true.</summary>
        internal Written Token { get; private set; }

        /// <summary>Waits for the next token, and returns true. Returns false after the last token. Throws the
        /// exception that ended the call, if there is one.</summary>
        internal bool Next()
        {
            ready.Wait();
            if (ended) work.GetAwaiter().GetResult();
            return !ended;
        }

        /// <summary>Lets the call generate the next token.</summary>
        internal void Processed() { processed.Release(); }

        /// <summary>Ends the call, and waits for its end.</summary>
        internal void Leave()
        {
            left = true;
            processed.Release();
            // Unlike Wait, WaitAny does not throw the exception of the call, which Next has thrown already, or which
            // the program that left the loop does not want. Reading it marks it as observed.
            Task.WaitAny(work);
            GC.KeepAlive(work.Exception);
        }

#if NET8_0_OR_GREATER
        // Like Next, without blocking the thread.
        internal async Task<bool> NextAsync()
        {
            await ready.WaitAsync().ConfigureAwait(false);
            if (ended) await work.ConfigureAwait(false);
            return !ended;
        }

        // Like Leave, without blocking the thread.
        internal async Task LeaveAsync()
        {
            left = true;
            processed.Release();
            await work.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
#endif

        // Token callback of the call: passes a token to Next, and waits for Processed or Leave.
        private bool Tell(Written token)
        {
            if (left) return false;
            Token = token;
            ready.Release();
            processed.Wait();
            return !left;
        }
    }

    public sealed partial class Generator
    {
        /// <summary>Generates text after each prompt like Generate, and returns the tokens of all rows as they are
        /// generated. The generation runs while the program loops over the tokens, and each step of the loop waits for
        /// a token. Leaving the loop ends the generation. The loop throws the exceptions of Generate. OnToken of the
        /// options is not called.</summary>
        public IEnumerable<Written> Stream(
            IList<string> prompts, [AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            return Tokens(() => new TokenStream(options, given => Generate(prompts, given, call)));
        }

        /// <summary>Continues all rows like Run, and returns their tokens as they are generated, like Stream.</summary>
        public IEnumerable<Written> StreamRun([AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            return Tokens(() => new TokenStream(options, given => Run(given, call)));
        }

        private static IEnumerable<Written> Tokens(Func<TokenStream> start)
        {
            var stream = start();
            try
            {
                while (stream.Next())
                {
                    yield return stream.Token;
                    stream.Processed();
                }
            }
            finally
            {
                stream.Leave();
            }
        }

#if NET8_0_OR_GREATER
        /// <summary>Generates text after each prompt like Generate, and returns the tokens of all rows as they are
        /// generated. The loop does not block its thread while it waits for a token. Leaving the loop ends the
        /// generation. The loop throws the exceptions of Generate. OnToken of the options is not called.</summary>
        public IAsyncEnumerable<Written> StreamAsync(IList<string> prompts, [AllowNull] GenerateOptions options = null,
            CancellationToken cancellationToken = default)
        {
            return TokensAsync(
                token => new TokenStream(options, given => Generate(prompts, given, token)), cancellationToken);
        }

        /// <summary>Continues all rows like Run, and returns their tokens as they are generated, like
        /// StreamAsync.</summary>
        public IAsyncEnumerable<Written> StreamRunAsync([AllowNull] GenerateOptions options = null,
            CancellationToken cancellationToken = default)
        {
            return TokensAsync(token => new TokenStream(options, given => Run(given, token)), cancellationToken);
        }

        // With EnumeratorCancellation, cancellationToken is the argument of StreamAsync combined with that of
        // WithCancellation.
        private static async IAsyncEnumerable<Written> TokensAsync(Func<CancellationToken, TokenStream> start,
            [EnumeratorCancellation] CancellationToken cancellationToken)
        {
            var stream = start(cancellationToken);
            try
            {
                while (await stream.NextAsync().ConfigureAwait(false))
                {
                    yield return stream.Token;
                    stream.Processed();
                }
            }
            finally
            {
                await stream.LeaveAsync().ConfigureAwait(false);
            }
        }
#endif
    }
}
