// Attributes that say where null is accepted or returned. Compilers of C# 8 or later read them. They are used instead
// of the notation with `?`, because this folder must also compile with C# 7, which does not support that notation. .NET
// has these attributes; for .NET Standard 2.0, which lacks them, they are defined here.

#if NET8_0_OR_GREATER
global using System.Diagnostics.CodeAnalysis;
#else
using System;

namespace Optimize
{
    /// <summary>Marks a parameter or property that accepts null.</summary>
    [AttributeUsage(AttributeTargets.Parameter | AttributeTargets.Property)]
    internal sealed class AllowNullAttribute : Attribute { }

    /// <summary>Marks a property or result that may be null.</summary>
    [AttributeUsage(AttributeTargets.Property | AttributeTargets.ReturnValue)]
    internal sealed class MaybeNullAttribute : Attribute { }
}
#endif
