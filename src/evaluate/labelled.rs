//! Files with two columns, a label and a text in each row, as TSV or CSV.

use crate::error::{Result, bail};
use serde::Serialize;

/// The names of the two columns in the first row, which identify a header and set the order.
const LABEL_NAMES: [&str; 8] = ["label", "labels", "class", "category", "target", "intent", "sentiment", "genre"];
const TEXT_NAMES: [&str; 8] = ["text", "texts", "sentence", "content", "message", "review", "document", "body"];

/// A text with its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Labelled {
    /// Name or index of the class, as in the file.
    pub label: String,
    /// Content of the text.
    pub text: String,
    /// Line of the file on which the row begins, from 1.
    pub line: usize,
}

/// The format of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Columns are separated by tabs; quotation marks have no meaning (IANA, text/tab-separated-values).
    Tsv,
    /// Columns are separated by commas; a quoted field may contain commas, line breaks and doubled quotation marks (RFC
    /// 4180).
    Csv,
}

/// The line on which a row begins, and the fields of the row.
type Row = (usize, Vec<String>);

/// Returns the labels and texts in the content of a file.
///
/// Columns are separated by tabs if the first line has one, otherwise by commas. They are `label, text`, unless a
/// header row sets another order (`text, label`, or those two among others). Empty lines are skipped. Fails with
/// [`crate::error::Kind::InvalidArgument`], with the line, if a row has another number of columns, a label or a text is
/// empty, quotation marks are not closed, or there is no row.
pub fn parse(content: &str) -> Result<Vec<Labelled>> {
    // The byte order mark that some editors add.
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    let first = content.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    let form = if first.contains('\t') { Form::Tsv } else { Form::Csv };
    let mut rows = rows(content, form)?.into_iter().peekable();
    let header = rows.peek().and_then(|(_, fields)| header(fields));
    let (label, text, columns) = match header {
        Some(found) => {
            rows.next();
            found
        }
        None => (0, 1, 2),
    };
    let mut found = Vec::new();
    for (line, fields) in rows {
        if fields.len() != columns {
            let (count, parted) = (fields.len(), if form == Form::Tsv { "tabs" } else { "commas" });
            bail!(
                InvalidArgument,
                "line {line}: {count} columns separated by {parted}; {columns} are expected (label, text)"
            );
        }
        let (label, text) = (fields[label].trim(), fields[text].trim());
        if label.is_empty() || text.is_empty() {
            let which = if label.is_empty() { "label" } else { "text" };
            bail!(InvalidArgument, "line {line}: the {which} is empty");
        }
        found.push(Labelled { label: label.to_owned(), text: text.to_owned(), line });
    }
    if found.is_empty() {
        bail!(InvalidArgument, "there is no row of a label and a text");
    }
    Ok(found)
}

/// Returns the indices of label and text and the number of columns, if the row is a header; otherwise `None`.
fn header(fields: &[String]) -> Option<(usize, usize, usize)> {
    let named = |names: &[&str]| {
        fields.iter().position(|field| names.contains(&field.trim().to_lowercase().trim_start_matches('#')))
    };
    Some((named(&LABEL_NAMES)?, named(&TEXT_NAMES)?, fields.len()))
}

fn rows(content: &str, form: Form) -> Result<Vec<Row>> {
    if form == Form::Csv {
        return quoted_rows(content);
    }
    let numbered = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok(numbered.map(|(index, line)| (index + 1, line.split('\t').map(str::to_owned).collect())).collect())
}

fn quoted_rows(content: &str) -> Result<Vec<Row>> {
    let (mut rows, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begin, mut quoted) = (1, 1, None);
    let mut characters = content.chars().peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        match character {
            '"' if quoted.is_some() && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted.is_some() => quoted = None,
            _ if quoted.is_some() => field.push(character),
            '"' if field.trim().is_empty() => {
                field.clear();
                quoted = Some(line);
            }
            ',' => fields.push(std::mem::take(&mut field)),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                end_row(&mut rows, begin, &mut fields, &mut field);
                begin = line;
            }
            _ => field.push(character),
        }
    }
    if let Some(line) = quoted {
        bail!(InvalidArgument, "line {line}: the quotation mark that opens a field is not closed");
    }
    end_row(&mut rows, begin, &mut fields, &mut field);
    Ok(rows)
}

fn end_row(rows: &mut Vec<Row>, line: usize, fields: &mut Vec<String>, field: &mut String) {
    if !fields.is_empty() || !field.trim().is_empty() {
        fields.push(std::mem::take(field));
        rows.push((line, std::mem::take(fields)));
    }
    field.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(content: &str) -> Vec<(String, String)> {
        parse(content).unwrap().into_iter().map(|row| (row.label, row.text)).collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn tabs_and_commas_with_and_without_a_header() {
        let wanted = owned(&[("ham", "hello, you"), ("spam", "buy \"now\"")]);
        assert_eq!(pairs("ham\thello, you\nspam\tbuy \"now\"\n"), wanted);
        assert_eq!(pairs("\u{feff}label\ttext\r\nham\thello, you\r\n\r\nspam\tbuy \"now\""), wanted);
        assert_eq!(pairs("ham,\"hello, you\"\nspam,\"buy \"\"now\"\"\"\n"), wanted);
        assert_eq!(pairs("id,Text,Label\n1,\"hello, you\",ham\r\n2,\"buy \"\"now\"\"\",spam\n"), wanted);
        assert_eq!(pairs("0, \"two\nlines\"\n1,a 5\" disk\n"), owned(&[("0", "two\nlines"), ("1", "a 5\" disk")]));
        // A row in which only one value is the name of a column is not a header.
        assert_eq!(pairs("text\tof a novel\n"), owned(&[("text", "of a novel")]));
    }

    #[test]
    fn lines_are_counted_through_quotation_marks() {
        let rows = parse("0,\"two\nlines\"\n\n1,x\n").unwrap();
        assert_eq!((rows[0].line, rows[1].line), (1, 4));
        let message = |content: &str| parse(content).unwrap_err().to_string();
        assert!(message("0,a\n\n1,b,c\n").contains("line 3: 3 columns separated by commas"));
        assert!(message("0\ta\n1\n").contains("line 2: 1 columns separated by tabs"));
        assert!(message("0,a\n1,\"b\n").contains("line 2: the quotation mark"));
        assert!(message("0,a\n,b\n").contains("line 2: the label is empty"));
        assert!(message("0\ta\n1\t \n").contains("line 2: the text is empty"));
        assert!(message("label,text\n").contains("no row") && message("").contains("no row"));
    }
}
