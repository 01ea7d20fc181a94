// Attributes that say where null is accepted or returned. Compilers of C# 8 or later read them. Compilers of C# 7, with
// which this folder also compiles, do not support the notation with `?`. .NET has these attributes; .NET Standard 2.0
// does not, so that they are defined here.

#if NET8_0_OR_GREATER
global using System.Diagnostics.CodeAnalysis;
#else
using System;

namespace Optimize
{
    /// <summary>A parameter or property that accepts null.</summary>
    [AttributeUsage(AttributeTargets.Parameter | AttributeTargets.Property)]
    internal sealed class AllowNullAttribute : Attribute { }

    /// <summary>A property or result that may be null.</summary>
    [AttributeUsage(AttributeTargets.Property | AttributeTargets.ReturnValue)]
    internal sealed class MaybeNullAttribute : Attribute { }
}
#endif
