// A JSON reader for the programs of this folder, because Mono has none without a package. Programs for .NET use
// System.Text.Json instead: JsonDocument.Parse(report).

using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

/// <summary>A parser of JSON, whose values are dictionaries, lists, strings, doubles, bools and null.</summary>
internal sealed class Json
{
    private readonly string text;
    private int at;

    private Json(string text) { this.text = text; }

    internal static object Parse(string text)
    {
        var json = new Json(text);
        var value = json.Value();
        if (json.Peek() != '\0') throw json.Bad();
        return value;
    }

    /// <summary>Returns the value at a path of keys; null if there is no such value.</summary>
    internal static object Find(object json, params string[] path)
    {
        foreach (var key in path)
        {
            var members = json as Dictionary<string, object>;
            if (members == null || !members.TryGetValue(key, out json)) return null;
        }
        return json;
    }

    internal static double Number(object json, params string[] path) { return (double)Find(json, path); }

    private object Value()
    {
        switch (Peek())
        {
            case '{': return Members();
            case '[': return Items();
            case '"': return Text();
            case 't': return Word("true", true);
            case 'f': return Word("false", false);
            case 'n': return Word("null", null);
            default: return Number();
        }
    }

    private Dictionary<string, object> Members()
    {
        var members = new Dictionary<string, object>();
        at++;
        if (Skip('}')) return members;
        do
        {
            if (Peek() != '"') throw Bad();
            var key = Text();
            Expect(':');
            members.Add(key, Value());
        }
        while (Skip(','));
        Expect('}');
        return members;
    }

    private List<object> Items()
    {
        var items = new List<object>();
        at++;
        if (Skip(']')) return items;
        do items.Add(Value());
        while (Skip(','));
        Expect(']');
        return items;
    }

    private string Text()
    {
        var result = new StringBuilder();
        for (at++; at < text.Length && text[at] != '"'; at++)
        {
            if (text[at] < ' ') throw Bad();
            if (text[at] != '\\')
            {
                result.Append(text[at]);
                continue;
            }
            if (++at == text.Length) throw Bad();
            int known = "\"\\/bfnrt".IndexOf(text[at]);
            if (known >= 0)
            {
                result.Append("\"\\/\b\f\n\r\t"[known]);
                continue;
            }
            if (text[at] != 'u' || at + 4 >= text.Length) throw Bad();
            result.Append((char)int.Parse(text.Substring(at + 1, 4), NumberStyles.HexNumber));
            at += 4;
        }
        if (at++ >= text.Length) throw Bad();
        return result.ToString();
    }

    private object Number()
    {
        int start = at;
        while (at < text.Length && "+-.0123456789eE".IndexOf(text[at]) >= 0) at++;
        double number;
        var digits = text.Substring(start, at - start);
        if (double.TryParse(digits, NumberStyles.Float, CultureInfo.InvariantCulture, out number)) return number;
        throw Bad();
    }

    private object Word(string word, object value)
    {
        if (string.CompareOrdinal(text, at, word, 0, word.Length) != 0) throw Bad();
        at += word.Length;
        return value;
    }

    private char Peek()
    {
        while (at < text.Length && " \t\r\n".IndexOf(text[at]) >= 0) at++;
        return at < text.Length ? text[at] : '\0';
    }

    private bool Skip(char c)
    {
        if (Peek() != c) return false;
        at++;
        return true;
    }

    private void Expect(char c)
    {
        if (!Skip(c)) throw Bad();
    }

    private FormatException Bad() { return new FormatException("no JSON at character " + at); }
}
