// Attributes that say where null is accepted or returned. A compiler of C# 8 or later reads them; those of C# 7, with
// which this folder also compiles, have no other notation. .NET has the attributes, .NET Standard 2.0 has not.

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
